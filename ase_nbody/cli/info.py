"""``nbody info``: what is in a model file."""

import json
from typing import Annotated

import typer
import yaml

from ase_nbody.archive import read_card


def info(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print a model's card, configuration, units, versions and checksum."""
    content = read_card(model)
    typer.echo(json.dumps(content, indent=2) if as_json else yaml.safe_dump(content, sort_keys=False))
