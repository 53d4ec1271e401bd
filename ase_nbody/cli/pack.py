"""``nbody pack``: join several models in one file, as a committee."""

from pathlib import Path
from typing import Annotated

import typer

from ase_nbody.text import printable


def pack(
    models: Annotated[list[str], typer.Argument(help="Model files, trained in the same way but from different seeds.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
) -> None:
    """Pack models into one committee; where its members disagree, none of them can be trusted."""
    from ase_nbody.data.file_names import in_home
    from ase_nbody.files.committee import pack_models

    output = Path(in_home(output))
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another name or move the file away")
    typer.echo(printable(f"Wrote {pack_models(models, output, replace=False)}", 4000))
