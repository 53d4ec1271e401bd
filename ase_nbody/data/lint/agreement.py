"""Remarks on units, signs and order of energies, forces and stresses: whether they belong to one potential."""

from collections.abc import Iterator

import numpy as np

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.lint.components import Order
from ase_nbody.data.lint.remark import Frames, Remark, error, note
from ase_nbody.data.lint.similar import similar_pairs
from ase_nbody.data.lint.slopes import Slope, slopes
from ase_nbody.data.lint.stiffness import bond_stiffness
from ase_nbody.data.lint.strain import order_of_components
from ase_nbody.data.lint.units import explain_energy, explain_stress

_ASE_ORDER = "ASE's order is xx, yy, zz, yz, xz, xy, positive under tension"


def remarks(frames: Frames) -> Iterator[Remark]:
    """All remarks on whether the labels agree with each other."""
    changes = similar_pairs(frames)
    alpha, beta = slopes(changes)
    stiffness = bond_stiffness(frames)
    sizes = [len(frame.structure) for frame in frames if np.isfinite(frame.energy)]
    yield _units(alpha, stiffness, float(np.median(sizes)) if sizes else 1.0)
    if any(has_stress(frame) for frame in frames):
        yield _stress(beta, order_of_components(changes), energies_wrong=alpha.is_wrong)


def has_stress(frame: LabelledStructure) -> bool:
    """Whether a frame has a stress label and can have one."""
    return bool(frame.structure.pbc.all() and np.isfinite(frame.stress).all())


def _units(alpha: Slope, stiffness: Slope, n_atoms: float) -> Remark:
    """What the energies say of the forces, and what the bonds say of them."""
    if alpha.is_wrong or stiffness.is_wrong:
        found = []
        if alpha.is_wrong:
            found.append(f"Energies do not match the forces: the slope is {alpha.value:.3g} instead of 1.")
        if stiffness.is_wrong:
            found.append(
                f"By their forces, bonds are {stiffness.value:.3g} times as stiff as bonds of their length are."
            )
        measured = [slope.value if slope.is_clear else None for slope in (alpha, stiffness)]
        found.append(
            f"This would fit {explain_energy(measured[0], measured[1], n_atoms)}. Convert to eV and eV/Angstrom."
        )
        return error("units", *found)
    if alpha.is_right and stiffness.is_right:
        return note(
            "units",
            f"Energies match the forces (the slope is {alpha.value:.2f}), and bonds are as stiff as they should be",
            f"({stiffness.value:.2f}): units and signs are right.",
        )
    known = []
    if alpha.is_right:
        known.append(f"Energies match the forces (the slope is {alpha.value:.2f}), so their units belong together.")
    if stiffness.is_right:
        known.append(f"Bonds are as stiff as they should be ({stiffness.value:.2f}), so forces are in eV/Angstrom.")
    unknown = {
        (
            True,
            False,
        ): "Cannot tell whether they are eV and eV/Angstrom: the data have no bonds of known stiffness.",
        (False, True): "Cannot tell the unit of the energies: too few frames of the same atoms are alike.",
        (False, False): "Cannot tell units and signs: too few frames of the same atoms are alike.",
    }
    return note("units", *known, unknown[alpha.is_right, stiffness.is_right])


def _stress(beta: Slope, order: Order | None, *, energies_wrong: bool) -> Remark:
    """What energies and strains say of the stresses."""
    if beta.is_wrong and not energies_wrong:
        return error(
            "stress",
            f"Stresses do not match the energies, whose slope over the work of the stresses is {beta.value:.3g}",
            f"instead of 1. This would fit {explain_stress(beta.value)}.",
            "Convert to eV/Angstrom^3, positive under tension.",
        )
    if order is not None and not order.is_ase:
        return wrong_order(order, "The strains show that the stresses are")
    known = []
    if beta.is_right:
        known.append(f"Stresses match the energies (the slope is {beta.value:.2f}).")
    if order is not None:
        known.append("Their components are in ASE's order.")
    unknown = {
        (True, False): "Cannot tell the order of their components: not all six strains occur in enough frames.",
        (False, True): "Cannot tell their unit: too few frames differ by a small strain.",
        (False, False): "Cannot tell units, signs and order: too few frames differ by a small strain.",
    }
    return note("stress", *known, *[text for key, text in unknown.items() if key == (beta.is_right, order is not None)])


def wrong_order(order: Order, evidence: str) -> Remark:
    """The remark on stresses in a wrong order or with wrong signs."""
    return error("stress", f"{evidence} in the order {order}. {_ASE_ORDER}: reorder them.")
