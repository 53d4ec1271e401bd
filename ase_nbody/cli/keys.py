"""Options of several commands: ``--key``, unusual names of labels in a data file, ``--head`` and ``--threads``."""

import os
from typing import Annotated

import typer

from ase_nbody.data.labels import USUAL_KEYS

_CHOICES = ", ".join(USUAL_KEYS)
KeysOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="LABEL=NAME", help=f"Name of a label ({_CHOICES}); repeat for several."),
]
HeadOption = Annotated[str | None, typer.Option(help="Which head, of a model that has several theories.")]


def check_threads(threads: int) -> None:
    """Refuse more threads than there are CPUs.

    Raises:
        ValueError: names both numbers.
    """
    cpus = os.cpu_count() or 1
    if threads > cpus:
        raise ValueError(f"--threads {threads} is more than the {cpus} CPUs of this machine: give at most {cpus}")


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
