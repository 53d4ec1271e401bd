"""The command line ``nbody``, one file for each command. An error or a warning shows one line.

With ``--debug``, an error shows its traceback and a warning the line of code that gave it.

A command is imported when it runs. So help and version come at once, without torch.
"""

import errno
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

import ase_nbody
from ase_nbody.terminal import plain

# ASE's optimisers and filters solve small systems of equations at each step. On a busy machine the threads of OpenBLAS
# wait for each other there, and a step takes ten times as long. Numpy, which no command has imported yet, reads this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_EXIT_CODE_INTERRUPTED = 130  # shells use it after Ctrl-C
_PACKAGE = Path(__file__).resolve().parent.parent

# The commands, each the function of this name in the file of this name, and the first lines of their help.
COMMANDS = {
    "train": "Train a model on structures with energies and forces, and with stresses if the data have them.",
    "lint": "Say in words what is wrong with training data; exit with 1 if it would spoil a training.",
    "evaluate": "Print mean absolute and root-mean-square errors of energy, forces, stress, partial charges and "
    "dipole moment.",
    "info": "Print a model's elements, card, errors, configuration and checksum.",
    "models": "List the models that come with the package: elements, theory, errors, licence, limits.",
    "pack": "Pack models into one committee; where its members disagree, none of them can be trusted.",
    "compile": "Compile a model to native code; NBodyCalculator(model, compile=True) then loads it without delay.",
    "md": "Run molecular dynamics: trajectory.extxyz, table.csv, run.png and checkpoint.json in a folder.",
    "lammps": "Build the plugin for LAMMPS, or export a model for it.",
    "check": "Check symmetries, derivatives, smoothness, repulsion, extensivity and dynamics; exit with 1 if a check "
    "fails.",
}


class Commands(TyperGroup):
    """The group of all commands. It imports a command only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A command for the list in the help: it has a name and a sentence, and cannot run."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that the arguments name, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(str(name)), rest


def load(name: str) -> Any:
    """Import a command."""
    module = import_module(f"{__name__}.{name}")
    if isinstance(getattr(module, "app", None), typer.Typer):  # it has commands of its own
        return typer.main.get_command(module.app)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(getattr(module, name))
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="N-body networks for ASE.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ase-nbody {ase_nbody.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """N-body networks for ASE: train, evaluate and inspect interatomic potentials."""
    from ase_nbody.runtime.memory import keep_freed_memory

    keep_freed_memory()


def main() -> None:
    """Run the command. An error becomes one readable line and exit code 1, an interrupt becomes exit code 130."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # it may stand anywhere
    pythons = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Show a warning of this package without the line of code that gave it."""
        if Path(filename).resolve().is_relative_to(_PACKAGE):
            _tell("warning:", " ".join(str(message).split()))
        else:
            pythons(message, category, filename, lineno, file, line)

    if len(arguments) == len(sys.argv) - 1:
        warnings.showwarning = show
    try:
        app(args=arguments)
    except SystemExit as end:
        if end.code == _EXIT_CODE_INTERRUPTED:
            _tell("interrupted")
        raise
    except Exception as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        _tell("error:", _sentence(error))
        raise SystemExit(1) from None
    finally:
        warnings.showwarning = pythons


def _tell(kind: str, message: str = "") -> None:
    Console(stderr=True).print(Text(kind, style="bold red"), plain(message), soft_wrap=True)


def _sentence(error: Exception) -> str:
    """What went wrong, in one line.

    Our own errors say what to do. This function adds advice to others where it can, and otherwise names their type.
    """
    message = " ".join(str(error).split())
    try:
        from ase.calculators.calculator import CalculatorError

        from ase_nbody.runtime.evaluation import EvaluationError
        from ase_nbody.runtime.fallback import is_out_of_memory
    except Exception:  # the error is what keeps them from being imported
        return f"the package cannot be imported ({type(error).__name__}: {message or 'no details'})"
    if is_out_of_memory(error) and not isinstance(error, CalculatorError | EvaluationError):
        return f"out of memory ({message or 'no details'}): use smaller structures, fewer of them, or float32."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"there is no room to write ({message}): free some space, or write elsewhere. "
            "Files that were complete before are unchanged."
        )
    if isinstance(error, ValueError | OSError | CalculatorError | EvaluationError | ImportError) and message:
        return message
    return f"{type(error).__name__} ({message or 'no details'}). This is unexpected; --debug shows where it happened."
