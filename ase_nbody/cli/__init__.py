"""The command line ``nbody``: one file a command. Errors are one readable line, tracebacks come with ``--debug``."""

import sys
from typing import Annotated

import typer
from ase.calculators.calculator import CalculatorError
from rich.console import Console

from ase_nbody.cli.evaluate import evaluate
from ase_nbody.cli.info import info
from ase_nbody.cli.train import train

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="N-body networks for ASE."
)
app.command()(train)
app.command()(evaluate)
app.command()(info)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """N-body networks for ASE: train, evaluate and inspect interatomic potentials."""


def main() -> None:
    """Entry point: run the command, turn errors that name their cure into one line and exit code 1."""
    try:
        app()
    except (ValueError, OSError, CalculatorError, ImportError) as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
