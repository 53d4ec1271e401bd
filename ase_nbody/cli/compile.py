"""``nbody compile``: make the native code of a model before a calculation needs it."""

from typing import Annotated

import typer

from ase_nbody.cli.keys import HeadOption
from ase_nbody.text import printable


def compile(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; repeat for both.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    large: Annotated[
        bool,
        typer.Option("--large", help="Also compile for large systems (on a CPU, more than 640 atoms per thread)."),
    ] = False,
    head: HeadOption = None,
    force: Annotated[bool, typer.Option("--force", help="Compile again what has been compiled before.")] = False,
) -> None:
    """Compile a model to native code; NBodyCalculator(model, compile=True) then loads it without delay."""
    from ase_nbody.engines.calculator import NBodyCalculator
    from ase_nbody.runtime.aot import kept_library
    from ase_nbody.runtime.aot_key import library_key
    from ase_nbody.runtime.compiled import programs

    for name in dtype or ["float64"]:
        networks = NBodyCalculator(model, head=head, dtype=name, device=device).networks
        # The members of a committee share their code, unless their isolated-atom energies differ.
        for network in {library_key(network): network for network in networks}.values():
            for program, trace in programs(network, large=large).items():
                typer.echo(f"{name}: {printable(kept_library(network, program, trace, anew=force), 4000)}")
