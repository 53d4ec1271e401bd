"""The electronic states that a model learnt: total charges and spin multiplicities. It knows nothing of others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from ase_nbody.structure import Structure

if TYPE_CHECKING:
    from ase_nbody.network.config import NBodyConfig

_CHARGE_TOLERANCE_E = 1e-3  # files round charges
_NAMES = {1: " (singlet)", 2: " (doublet)", 3: " (triplet)"}


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


# Total charges in e, and multiplicities 2S + 1, of the structures that a model learnt: sorted, each once.
TotalCharges = Annotated[
    tuple[Annotated[int, Field(ge=-1000, le=1000)], ...],
    Field(min_length=1, max_length=100),
    AfterValidator(_ascending),
]
Multiplicities = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1, max_length=100), AfterValidator(_ascending)
]


def unlearnt_state(structure: Structure, configs: "Sequence[NBodyConfig]") -> str:
    """In words: the charge or the spin of a structure that one of the networks did not learn, or an empty string.

    A free atom has its isolated-atom energy, whatever its spin. Where nothing is said of the spin, it is the lowest
    that the number of electrons allows: a structure with an odd number is a doublet.

    Args:
        structure: the structure.
        configs: configurations of the networks. Those without ``total_charges`` take any charge, and those without
            ``multiplicities`` any spin.
    """
    faults = (_unlearnt_charge(structure, config) or _unlearnt_spin(structure, config) for config in configs)
    return next(filter(None, faults), "")


def _unlearnt_charge(structure: Structure, config: "NBodyConfig") -> str:
    charges = config.total_charges
    if charges is None or min(abs(structure.charge - one) for one in charges) <= _CHARGE_TOLERANCE_E:
        return ""
    learnt = " or ".join(map(_signed, charges))
    return (
        f"the structure has a total charge of {_signed(structure.charge)} e, and the model learnt structures with "
        f"{learnt} e alone. Correct the charge (in ASE atoms.info['charge']) if it is wrong; otherwise take a model "
        "that learnt such ions."
    )


def _unlearnt_spin(structure: Structure, config: "NBodyConfig") -> str:
    multiplicities, found = config.multiplicities, structure.spin_multiplicity
    if multiplicities is None or found in multiplicities or structure.is_isolated_atom(config.reach):
        return ""
    learnt = " or ".join(map(_named, multiplicities))
    if structure.multiplicity is None:
        return (
            f"the structure has {structure.electrons:g} electrons and no spin is given, so its multiplicity is "
            f"{_named(found)}, and the model learnt structures of multiplicity {learnt} alone. Is an atom missing, "
            "such as a hydrogen, or is there one too many? Otherwise take a model that learnt such structures."
        )
    return (
        f"the structure has the spin multiplicity {_named(found)}, and the model learnt structures of multiplicity "
        f"{learnt} alone. Correct the spin if it is wrong (in ASE it is read from atoms.info['spin'] or the like, or "
        "from initial magnetic moments); otherwise take a model that learnt such structures."
    )


def _signed(charge: float) -> str:
    return f"{charge:+g}" if charge else "0"


def _named(multiplicity: int) -> str:
    return f"{multiplicity}{_NAMES.get(multiplicity, '')}"
