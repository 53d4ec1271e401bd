"""``nbody evaluate``: errors of a model on labelled structures."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ase_nbody.cli.keys import HeadOption, KeysOption, parse_keys
from ase_nbody.files.archive import load_members
from ase_nbody.files.committee import refuse_repeated
from ase_nbody.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase_nbody.data import LabelledStructure

# Errors below this, in meV/Angstrom, of forces of which some are larger than that, in eV/Angstrom, are round-off.
_ROUND_OFF_MEV, _FORCES_EV = 0.005, 0.01


def evaluate(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    data: Annotated[str, typer.Argument(help="File with reference values (extxyz, ...).")],
    index: Annotated[str, typer.Option(help="Which frames, as ASE writes slices.")] = ":",
    key: KeysOption = None,
    head: HeadOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print mean absolute and root-mean-square errors of energy, forces, stress, partial charges and dipole moment.

    For a committee, the errors of its mean, and how its spread compares with them.
    """
    from ase_nbody.data import DataError, Found, read_labelled
    from ase_nbody.training.electronic_states import require_learnt_states
    from ase_nbody.training.energy_zero import find_energy_zero
    from ase_nbody.training.evaluation import errors_table, evaluate_and_predict, require_finite
    from ase_nbody.training.label_units import find_label_units
    from ase_nbody.training.loss import unit_of
    from ase_nbody.training.said import said_of_parts
    from ase_nbody.training.spread import spread_calibration, spread_table
    from ase_nbody.training.two_zeros import find_two_zeros
    from ase_nbody.training.unlike import find_unlike

    members = load_members(model, head)
    refuse_repeated([members], [model])
    contents: list[Found] = []
    frames = read_labelled(data, index, keys=parse_keys(key), tell=contents.append)
    (content,) = contents
    for sentence in filter(None, (str(content), content.ignored(members[0].config))):
        Console(stderr=as_json).print(plain(sentence), soft_wrap=True)
    require_learnt_states(members[0].config, {"reference": frames})
    if members[0].config.is_labelled:
        for sentence in said_of_parts({"reference": frames}):
            Console(stderr=as_json).print(plain(sentence), soft_wrap=True)
    table, predicted = evaluate_and_predict(members, frames)
    if not table:
        raise DataError(f"{data} has no labels to compare with, such as energies; see docs/training.md for their names")
    require_finite(model, predicted, [f"frame {number} of those read from {data}" for number in range(len(frames))])
    if _are_its_own(table, frames):
        Console(stderr=as_json).print(
            "The forces agree to round-off: these labels were computed by this model. To compare with a reference, "
            "name its labels with --key.",
            soft_wrap=True,
        )
    unlike, units = find_unlike(members, frames), find_label_units(frames, predicted)
    in_electronvolts = all(one.label != "energy" for one in units)  # otherwise a zero of energy means nothing
    zero = find_energy_zero(frames, predicted) if in_electronvolts else None
    zeros = find_two_zeros(frames, predicted)
    spread = spread_calibration(members, frames) if len(members) > 1 else {}
    if as_json:
        found = {quantity: {"unit": unit_of(quantity), **measures} for quantity, measures in table.items()}
        about: dict[str, Any] = {"model": model, "data": data, "frames": len(frames)}
        about |= {"head": head} if head is not None else {}
        about |= {"labels": dict(content.labels), "names": dict(content.names.used), "left_out": dict(content.dropped)}
        about |= {"errors": found}
        about |= {"unlike_training_data": unlike.as_json()} if unlike else {}
        about |= {"units": {one.label: {"unit": one.unit, "factor": one.factor} for one in units}} if units else {}
        about |= {"energy_zero": zero.as_json()} if zero else {}
        about |= {"two_energy_zeros": zeros.as_json()} if zeros else {}
        about |= {"spread": spread} if spread else {}
        typer.echo(json.dumps(about, indent=2, allow_nan=False))
        return
    console, title = Console(), f"{model} on {len(frames)} frames of {data}"
    console.print(errors_table(table, title))
    if spread:
        console.print(spread_table(spread, title))
    for finding in filter(None, (unlike, *units, zero, zeros)):
        console.print(plain(str(finding)), highlight=False, soft_wrap=True)


def _are_its_own(table: "Mapping[str, Mapping[str, float]]", frames: "Sequence[LabelledStructure]") -> bool:
    """Whether the forces of the frames are those of the model, and not all zero."""
    import numpy as np

    largest = max((float(np.nan_to_num(np.abs(frame.forces)).max(initial=0.0)) for frame in frames), default=0.0)
    return "forces" in table and table["forces"]["mae"] < _ROUND_OFF_MEV and largest > _FORCES_EV
