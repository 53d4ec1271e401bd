"""The option ``--key``: names of the labels in a data file, where they are not the usual ones."""

from typing import Annotated

import typer

KeysOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="LABEL=NAME", help="Name of energy, forces, stress or virial; repeat for several."),
]
_LABELS = ("energy", "forces", "stress", "virial")


def parse_keys(options: list[str] | None) -> dict[str, str]:
    """``["energy=my_e"]`` -> ``{"energy": "my_e"}``.

    Raises:
        ValueError: another label, or no name.
    """
    keys = {}
    for option in options or []:
        label, _, name = option.partition("=")
        if label not in _LABELS or not name:
            raise ValueError(f"--key {option}: write LABEL=NAME, LABEL one of {', '.join(_LABELS)}")
        keys[label] = name
    return keys
