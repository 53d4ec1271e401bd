"""``nbody evaluate``: errors of a model on labelled structures."""

import json
from typing import Annotated

import typer
from rich.console import Console

from ase_nbody.cli.keys import KeysOption, parse_keys
from ase_nbody.files.archive import load_members


def evaluate(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    data: Annotated[str, typer.Argument(help="File with reference values (extxyz, ...).")],
    index: Annotated[str, typer.Option(help="Which frames, as ASE writes slices.")] = ":",
    key: KeysOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print mean absolute and root-mean-square errors of energy, forces, stress, partial charges and dipole moment."""
    from ase_nbody.data import DataError, Found, read_labelled
    from ase_nbody.training import errors_table, evaluate_model, unit_of

    members = load_members(model)
    contents: list[Found] = []
    frames = read_labelled(data, index, keys=parse_keys(key), tell=contents.append)
    (content,) = contents
    for sentence in filter(None, (str(content), content.ignored(uses_charge=bool(members[0].config.outputs)))):
        Console(stderr=as_json).print(sentence, markup=False, highlight=False, soft_wrap=True)
    table = evaluate_model(members, frames)
    if not table:
        raise DataError(f"{data} has no labels to compare with, such as energies; see docs/training.md for their names")
    if as_json:
        found = {quantity: {"unit": unit_of(quantity), **measures} for quantity, measures in table.items()}
        about = {"model": model, "data": data, "frames": len(frames)}
        read = {"labels": dict(content.labels), "names": dict(content.names.used), "left_out": dict(content.dropped)}
        typer.echo(json.dumps({**about, **read, "errors": found}, indent=2))
        return
    Console().print(errors_table(table, f"{model} on {len(frames)} frames of {data}"))
