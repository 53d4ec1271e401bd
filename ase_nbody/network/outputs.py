"""What a network can give beside energies, forces and virials: a table of names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Output:
    """What a network can give beside energies, forces and virials.

    Attributes:
        name: its name everywhere: in predictions, as a label, and among ASE's properties.
        per_structure: structures have it (B, ...); otherwise atoms have it (N, ...).
        molecular: only structures without any periodic direction have it.
    """

    name: str
    per_structure: bool
    molecular: bool


# By the entry of ``NBodyConfig.outputs`` that asks for them. A periodic system has no unique dipole.
OUTPUTS: Mapping[str, tuple[Output, ...]] = {
    "charges": (
        Output("charges", per_structure=False, molecular=True),
        Output("dipole", per_structure=True, molecular=True),
    )
}
PER_STRUCTURE = {"energy", *(output.name for outputs in OUTPUTS.values() for output in outputs if output.per_structure)}


def outputs_of(entries: Sequence[str]) -> tuple[Output, ...]:
    """What the entries of ``NBodyConfig.outputs`` ask for."""
    return tuple(output for entry in entries for output in OUTPUTS[entry])


def known_outputs(entries: Sequence[str]) -> tuple[str, ...]:
    """The entries of ``NBodyConfig.outputs``, sorted, each once.

    Raises:
        ValueError: there is no such output.
    """
    if unknown := [entry for entry in entries if entry not in OUTPUTS]:
        raise ValueError(f"no output is called {unknown[0]!r}; there are {', '.join(OUTPUTS)}")
    return tuple(sorted(set(entries)))
