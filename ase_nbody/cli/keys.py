"""Options of several commands: ``--key``, unusual names of the labels in a data file, and ``--head`` of a model."""

from typing import Annotated

import typer

from ase_nbody.data.labels import USUAL_KEYS

_CHOICES = ", ".join(USUAL_KEYS)
KeysOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="LABEL=NAME", help=f"Name of a label ({_CHOICES}); repeat for several."),
]
HeadOption = Annotated[str | None, typer.Option(help="Which head, of a model that has several theories.")]


def parse_keys(options: list[str] | None) -> dict[str, str]:
    """``["energy=my_e"]`` -> ``{"energy": "my_e"}``.

    Raises:
        ValueError: an option names another label, or gives no name.
    """
    keys = {}
    for option in options or []:
        label, _, name = option.partition("=")
        if label not in USUAL_KEYS or not name:
            raise ValueError(f"--key {option}: write LABEL=NAME, where LABEL is one of {_CHOICES}")
        keys[label] = name
    return keys
