"""``nbody lint``: find what would spoil a training before it starts."""

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ase_nbody.cli.keys import KeysOption, parse_keys

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}
_MAX_FRAME_NUMBERS = 8  # shown in a line; --json shows all


def lint(
    data: Annotated[str, typer.Argument(help="File with training structures (extxyz, ...).")],
    test: Annotated[
        str | None, typer.Option(help="File with test structures, to find those that leaked into DATA.")
    ] = None,
    key: KeysOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say in words what is wrong with training data; exit with 1 if it would spoil a training."""
    from ase_nbody.data import Found, read_labelled
    from ase_nbody.data.lint import lint as find_remarks

    keys = parse_keys(key)

    def tell(found: Found) -> None:
        Console(stderr=as_json).print(str(found), markup=False, highlight=False, soft_wrap=True)

    frames, test_frames = (read_labelled(path, keys=keys, tell=tell) if path else [] for path in (data, test))
    remarks = find_remarks(frames, test_frames)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(remark) for remark in remarks], indent=2))
    else:
        table = Table("", "subject", "what was found", title=data, show_lines=True)
        for remark in remarks:
            colour = _COLOURS[remark.severity]
            table.add_row(f"[{colour}]{remark.severity}[/]", remark.subject, remark.text + _frames(remark.frames))
        Console().print(table)
    if any(remark.severity == "error" for remark in remarks):
        raise typer.Exit(1)


def _frames(frames: tuple[int, ...]) -> str:
    if not frames:
        return ""
    more = f", ... ({len(frames)} in all)" if len(frames) > _MAX_FRAME_NUMBERS else ""
    return f" Frames {', '.join(map(str, frames[:_MAX_FRAME_NUMBERS]))}{more}."
