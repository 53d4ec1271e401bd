"""The command line ``nbody``: one file a command. Errors are one readable line, tracebacks come with ``--debug``."""

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

_INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

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
    """Entry point: run the command; an error becomes one readable line and exit code 1, an interrupt exit code 130."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # which may stand anywhere
    keep_freed_memory()
    try:
        app(args=arguments)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            _tell("interrupted")
        raise
    except Exception as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        _tell("error:", _sentence(error))
        raise SystemExit(1) from None


def _tell(kind: str, message: str = "") -> None:
    Console(stderr=True).print(Text(kind, style="bold red"), Text(message), soft_wrap=True)


def _sentence(error: Exception) -> str:
    """What went wrong, in one line. Errors of ours name their cure; others get one, or are called by their type."""
    message = " ".join(str(error).split())
    if is_out_of_memory(error) and not isinstance(error, CalculatorError):
        return f"out of memory ({message or 'no details'}): take smaller structures, fewer of them, or float32."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"there is no room to write ({message}): make some, or write elsewhere. Finished files are as they were."
    if isinstance(error, ValueError | OSError | CalculatorError | ImportError) and message:
        return message
    return (
        f"{type(error).__name__} ({message or 'no details'}). This was not foreseen; --debug shows where it happened."
    )
