"""``nbody info``: show what is in a model file, after reading all of it and verifying its checksums."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ase_nbody.files.archive import default_head, load_members, read_card
from ase_nbody.files.heads import in_card
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.text import printable

_MAX_ENTRIES = 12  # a list of more is shown as its length; --json shows all
_MAX_LINES = 40  # a mapping of more entries is shown as their number
_MAX_CHARACTERS = 2000  # of a text
_SHORT_CHECKSUM = 16  # characters of a checksum in the table of members
_BY_ELEMENT = ("forces_", "charges_")  # errors for each element, which the table of members leaves out


def info(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print a model's elements, card, errors, configuration and checksum."""
    members, content = load_members(model), read_card(model)
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    card: dict[str, Any] = content["card"]
    errors = {key: value for key, value in card.items() if _is_error_table(value)}
    lists = {key: value for key, value in card.items() if _is_member_list(value)}
    of_heads = {name: own for name, own in in_card(card).items() if isinstance(own, dict)}
    apart = {*errors, *lists, *(["heads"] if of_heads else [])}  # have tables of their own
    console = Console()
    console.print(_pairs(model, _overview(members, content)))
    console.print(_pairs("card", {key: value for key, value in card.items() if key not in apart}))
    for title, table in errors.items():
        console.print(_errors(title, table))
    for name, own in of_heads.items():
        tables = {key: value for key, value in own.items() if _is_error_table(value)}
        console.print(_pairs(f"head {name}", {key: value for key, value in own.items() if key not in tables}))
        for title, table in tables.items():
            console.print(_errors(f"head {name}: {title}", table))
    for title, listed in lists.items():
        console.print(_members(title, listed))
    console.print(_levels(content["config"]["levels"], list(map(str, members[0].taus[1:]))))


def _overview(members: list[NBodyNetwork], content: Mapping[str, Any]) -> dict[str, Any]:
    network = members[0]
    config = {key: value for key, value in content["config"].items() if key not in ("species", "levels", "coverage")}
    return {
        "elements": ", ".join(network.config.species),
        **(
            {"heads": ", ".join([f"{default_head(content)} (the default)", *content["heads"]["others"]])}
            if "heads" in content
            else {}
        ),
        **({"committee of": f"{len(members)} networks, each with the weights below"} if len(members) > 1 else {}),
        "weights": f"{sum(weight.numel() for weight in network.parameters()):,}",
        "influence ends at": f"{network.config.reach:g} Angstrom"
        + (" and the extent of labelled parts" if network.config.is_labelled else ""),
        **{key.replace("_", " "): value for key, value in config.items()},
        **_covered(network.config.coverage),
        "units": content["units"],
        "format": content["format"],
        "written with": content["versions"],
        "checksum": content["checksum"],
    }


def _covered(coverage: Coverage | None) -> dict[str, Any]:
    """What the training data covered, for each species."""
    if coverage is None:
        return {}
    return {
        "bonded to": {symbol: [formula or "none" for formula in found] for symbol, found in coverage.bonded.items()},
        "pairs never bonded": ", ".join(coverage.missing(coverage.bonds)) or "none",
        **(
            {}
            if coverage.contacts is None
            else {"pairs never in contact": ", ".join(coverage.missing(coverage.contacts)) or "none"}
        ),
        **(
            {}
            if coverage.intermolecular is None
            else {"molecules side by side": "in the data" if coverage.intermolecular else "never in the data"}
        ),
        "density of neighbours": {symbol: f"{low:g} to {high:g}" for symbol, (low, high) in coverage.densities.items()},
    }


def _pairs(title: str, entries: Mapping[str, Any]) -> Table:
    table = Table(title=_text(title), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in entries.items():
        table.add_row(_text(key), _lines(value))
    return table


def _lines(value: Any) -> Text:
    """A value as ``_text`` gives it, but a mapping with a line for each entry."""
    if not isinstance(value, dict):
        return _text(value)
    if len(value) > _MAX_LINES:
        return Text(f"({len(value)} entries)")
    return Text("\n").join(Text(": ").join((_text(key), _text(entry))) for key, entry in value.items())


def _is_error_table(value: Any) -> bool:
    """Whether an entry of the card is a table of errors by quantity, in the form that the training writes."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(row, dict) and "mae" in row for row in value.values())
    )


def _is_member_list(value: Any) -> bool:
    """Whether an entry of the card describes the members of a committee, in the form that the training writes."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "checksum" in one for one in value)


def _members(title: str, members: list[dict[str, Any]]) -> Table:
    """A row for each member of a committee: the beginning of its checksum, and its errors on the validation set."""
    listed: list[Any] = [one.get("validation errors") for one in members]
    found: list[dict[str, Any]] = [errors if _is_error_table(errors) else {} for errors in listed]
    columns = {name: row.get("unit") for name, row in found[0].items() if not name.startswith(_BY_ELEMENT)}
    names = [_text(f"{name.replace('_', ' ')} ({unit})") for name, unit in columns.items()]
    caption = "Errors are MAE on the validation set; --json shows the rest." if names else None
    table = Table("", "checksum", title=_text(title), title_justify="left", caption=caption, caption_justify="left")
    for name in names:
        table.add_column(name)
    for number, (one, errors) in enumerate(zip(members, found, strict=True), start=1):
        shown = [_text(errors.get(name, {}).get("mae", "-")) for name in columns]
        table.add_row(str(number), _text(f"{str(one['checksum'])[:_SHORT_CHECKSUM]}..."), *shown)
    return table


def _errors(title: str, errors: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("quantity", "MAE", "RMSE", "unit", title=_text(title), title_justify="left")
    for quantity, row in errors.items():
        table.add_row(*(_text(cell) for cell in (quantity.replace("_", " "), *map(row.get, ("mae", "rmse", "unit")))))
    return table


def _levels(levels: list[dict[str, Any]], types: list[str]) -> Table:
    """A table with one column for each level, the lowest first, and the types of the states that they hand up."""
    table = Table("levels", *(str(number) for number in range(1, len(levels) + 1)), title_justify="left")
    for key in dict.fromkeys(key for level in levels for key in level):  # levels leave out what they do not use
        table.add_row(_text(key.replace("_", " ")), *(_text(level.get(key, "-")) for level in levels))
    table.add_row("state handed up", *map(_text, types))
    return table


def _count(value: Any) -> int:
    """The number of entries of a list, those of lists within it included."""
    return sum(map(_count, value)) if isinstance(value, list | tuple) else 1


def _text(value: Any) -> Text:
    """A value in a form for people: text from a file must not control the terminal."""
    if isinstance(value, dict):
        return Text(", ").join(Text(" ").join((_text(key), _text(member))) for key, member in value.items())
    if isinstance(value, list | tuple):
        if _count(value) > _MAX_ENTRIES:
            return Text(f"({len(value)} entries)")
        return Text(", ").join(map(_text, value))
    return Text(printable(f"{value:.6g}" if isinstance(value, float) else str(value), _MAX_CHARACTERS))
