"""``nbody compile``: make the native code of a model before a calculation needs it."""

from typing import Annotated

import typer

from ase_nbody.files.archive import load_members
from ase_nbody.text import printable


def compile(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; repeat for both.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    large: Annotated[
        bool,
        typer.Option("--large", help="Also compile for large systems (on a CPU, more than 640 atoms per thread)."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compile again what has been compiled before.")] = False,
) -> None:
    """Compile a model to native code; NBodyCalculator(model, compile=True) then loads it without delay."""
    from ase_nbody.engines.calculator import NBodyCalculator
    from ase_nbody.runtime.aot import kept_library
    from ase_nbody.runtime.compiled import programs

    first, *_ = load_members(model)  # a committee's members share their code
    for name in dtype or ["float64"]:
        network = NBodyCalculator(first, dtype=name, device=device).networks[0]
        for program, trace in programs(network, large=large).items():
            typer.echo(f"{name}: {printable(kept_library(network, program, trace, anew=force), 4000)}")
