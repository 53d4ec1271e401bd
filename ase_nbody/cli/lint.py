"""``nbody lint``: find what would spoil a training before it starts."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ase_nbody.cli.keys import HeadOption, KeysOption, parse_keys
from ase_nbody.terminal import plain

if TYPE_CHECKING:
    from ase_nbody.data.lint.remark import Frames, Remark
    from ase_nbody.network.network import NBodyNetwork

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}
_MAX_FRAME_NUMBERS = 8  # shown in a line; --json shows all


def lint(
    data: Annotated[str, typer.Argument(help="File with training structures (extxyz, ...).")],
    test: Annotated[
        str | None, typer.Option(help="File with test structures, to find those that leaked into DATA.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model file or name of a shipped model, to compare stresses with: their order, sign and unit."
        ),
    ] = None,
    head: HeadOption = None,
    key: KeysOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say in words what is wrong with training data; exit with 1 if it would spoil a training."""
    from ase_nbody.data import Found, read_labelled
    from ase_nbody.data.file_names import in_home
    from ase_nbody.data.lint import in_order
    from ase_nbody.data.lint import lint as find_remarks
    from ase_nbody.files.archive import load_members

    keys = parse_keys(key)
    if head is not None and model is None:
        raise ValueError(f"--head {head} chooses a head of a model: name the model, --model")
    members = load_members(in_home(model), head) if model is not None else []  # no shell expands --model=~/...

    def tell(found: Found) -> None:
        for sentence in filter(None, (str(found), found.ignored(members[0].config if members else None))):
            Console(stderr=as_json).print(plain(sentence), soft_wrap=True)

    frames, test_frames = (read_labelled(path, keys=keys, tell=tell) if path else [] for path in (data, test))
    remarks = find_remarks(frames, test_frames)
    if members:
        remarks = in_order([*remarks, *_remarks_by_model(members, frames)])
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(remark) for remark in remarks], indent=2))
    else:
        table = Table("", "subject", "what was found", title=plain(data), show_lines=True)
        for remark in remarks:
            colour = _COLOURS[remark.severity]
            text = plain(remark.text + _frames(remark.frames))
            table.add_row(f"[{colour}]{remark.severity}[/]", remark.subject, text)
        Console().print(table)
    if any(remark.severity == "error" for remark in remarks):
        raise typer.Exit(1)


def _remarks_by_model(members: "list[NBodyNetwork]", frames: "Frames") -> "list[Remark]":
    """What a model says of the stresses."""
    from ase_nbody.data.lint import frames_with_stress, remarks_by_model
    from ase_nbody.data.lint.remark import note
    from ase_nbody.training import predict

    if chosen := frames_with_stress(frames):
        return list(remarks_by_model(chosen, predict(members, chosen), frames))
    return [note("stress", "There are no stresses that the model could be compared with.")]


def _frames(frames: tuple[int, ...]) -> str:
    if not frames:
        return ""
    more = f", ... ({len(frames)} in all)" if len(frames) > _MAX_FRAME_NUMBERS else ""
    return f" Frames {', '.join(map(str, frames[:_MAX_FRAME_NUMBERS]))}{more}."
