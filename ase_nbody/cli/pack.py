"""``nbody pack``: several models in one file, a committee."""

from pathlib import Path
from typing import Annotated

import typer


def pack(
    models: Annotated[list[str], typer.Argument(help="Model files, trained alike but from other seeds.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
) -> None:
    """Pack models into one committee, whose spread tells where none of them can be trusted."""
    from ase_nbody.files.committee import pack_models

    if output.exists():
        raise FileExistsError(f"{output} exists; choose another name or move it away")
    typer.echo(f"Wrote {pack_models(models, output)}")
