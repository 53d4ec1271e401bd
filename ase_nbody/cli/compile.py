"""``nbody compile``: the native code of a model, made before it is needed."""

from typing import Annotated

import typer

from ase_nbody.archive import load_members


def compile(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; repeat for both.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Compile anew what is there already.")] = False,
) -> None:
    """Compile a model to native code, which NBodyCalculator(model, compile=True) then finds at once."""
    from ase_nbody.calculator import NBodyCalculator
    from ase_nbody.compiled import compile_library, library_path

    first, *_ = load_members(model)  # a committee's members share their code
    for name in dtype or ["float64"]:
        network = NBodyCalculator(first, dtype=name, device=device).networks[0]
        path = library_path(network)
        if force or not path.is_file():
            compile_library(network, path)
        typer.echo(f"{name}: {path}")
