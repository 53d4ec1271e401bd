"""The command line ``nbody``, one file for each command. An error shows one line; with ``--debug``, a traceback."""

import errno
import sys
from typing import Annotated

import typer
from ase.calculators.calculator import CalculatorError
from rich.console import Console
from rich.text import Text

from ase_nbody.cli.check import check
from ase_nbody.cli.compile import compile
from ase_nbody.cli.evaluate import evaluate
from ase_nbody.cli.info import info
from ase_nbody.cli.lint import lint
from ase_nbody.cli.md import md
from ase_nbody.cli.pack import pack
from ase_nbody.cli.train import train
from ase_nbody.runtime.memory import is_out_of_memory, keep_freed_memory
from ase_nbody.text import printable

_LONGEST_MESSAGE = 5_000  # characters
_EXIT_CODE_INTERRUPTED = 130  # shells use it after Ctrl-C

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="N-body networks for ASE."
)
app.command()(train)
app.command()(lint)
app.command()(evaluate)
app.command()(info)
app.command()(pack)
app.command()(compile)
app.command()(md)
app.command()(check)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """N-body networks for ASE: train, evaluate and inspect interatomic potentials."""


def main() -> None:
    """Run the command. An error becomes one readable line and exit code 1, an interrupt becomes exit code 130."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # it may stand anywhere
    keep_freed_memory()
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


def _tell(kind: str, message: str = "") -> None:
    shown = printable(message, _LONGEST_MESSAGE)  # it may quote a file
    Console(stderr=True).print(Text(kind, style="bold red"), Text(shown), soft_wrap=True)


def _sentence(error: Exception) -> str:
    """What went wrong, in one line.

    Our own errors say what to do. This function adds advice to others where it can, and otherwise names their type.
    """
    message = " ".join(str(error).split())
    if is_out_of_memory(error) and not isinstance(error, CalculatorError):
        return f"out of memory ({message or 'no details'}): use smaller structures, fewer of them, or float32."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"there is no room to write ({message}): free some space, or write elsewhere. "
            "Files that were complete before are unchanged."
        )
    if isinstance(error, ValueError | OSError | CalculatorError | ImportError) and message:
        return message
    return f"{type(error).__name__} ({message or 'no details'}). This is unexpected; --debug shows where it happened."
