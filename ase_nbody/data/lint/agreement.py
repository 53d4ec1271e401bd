"""Remarks on units, signs and order of energies, forces and stresses: whether they belong to one potential."""

from collections.abc import Iterator

import numpy as np

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.lint.components import Order
from ase_nbody.data.lint.mixture import remarks as remarks_on_mixtures
from ase_nbody.data.lint.remark import Frames, Remark, error, note
from ase_nbody.data.lint.similar import similar_pairs
from ase_nbody.data.lint.slopes import Slope, slopes
from ase_nbody.data.lint.stiffness import bond_forces, bond_stiffness, stiffness_of_frames
from ase_nbody.data.lint.strain import order_of_components
from ase_nbody.data.lint.two_orders import remarks as remarks_on_two_orders
from ase_nbody.data.lint.units import explain_energy, explain_stress

_ASE_ORDER = "ASE's order is xx, yy, zz, yz, xz, xy, positive under tension"


def remarks(frames: Frames) -> Iterator[Remark]:
    """All remarks on whether the labels agree with each other."""
    changes = similar_pairs(frames)
    alpha, beta = slopes(changes)
    bonds = bond_forces(frames)
    mixed = list(remarks_on_mixtures(frames, changes, alpha, beta, stiffness_of_frames(bonds, len(frames))))
    yield from mixed
    if mixed:
        yield note("units", "Cannot tell units and signs: the labels contradict each other.")
    else:
        sizes = [len(frame.structure) for frame in frames if np.isfinite(frame.energy)]
        yield _units(
            alpha, bond_stiffness(bonds), float(np.median(sizes)) if sizes else 1.0, _why_unknown(frames, alpha)
        )
    if two_orders := list(remarks_on_two_orders(frames, changes)):
        yield from two_orders
    elif any(has_stress(frame) for frame in frames):
        yield _stress(beta, order_of_components(changes), energies_wrong=alpha.is_wrong or bool(mixed))


def wrong_bonds(frames: Frames) -> str | None:
    """What the stiffness of the bonds says of the unit of the forces, if it is clearly wrong; None otherwise."""
    stiffness = bond_stiffness(bond_forces(frames))
    if not stiffness.is_wrong:
        return None
    return (
        f"bonds are {stiffness.value:.3g} times as stiff as bonds of their length are, by their forces. This would fit "
        f"{explain_energy(None, stiffness.value)}."
    )


def has_stress(frame: LabelledStructure) -> bool:
    """Whether a frame has a stress label and can have one."""
    return bool(frame.structure.pbc.all() and np.isfinite(frame.stress).all())


def _why_unknown(frames: Frames, alpha: Slope) -> str:
    """Why energies and forces do not tell whether they belong together."""
    lacking = [
        name
        for name, labels in (("energies", [frame.energy for frame in frames]), ("forces", [f.forces for f in frames]))
        if not any(np.isfinite(label).all() for label in labels)
    ]
    if lacking:
        return f"there are no {' and no '.join(lacking)}"
    if alpha.count >= alpha.bounds.pairs:
        return "similar frames do not agree well enough"
    return "too few frames of the same atoms are alike"


def _units(alpha: Slope, stiffness: Slope, n_atoms: float, why_unknown: str) -> Remark:
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
        (False, True): f"Cannot tell the unit of the energies: {why_unknown}.",
        (False, False): f"Cannot tell units and signs: {why_unknown}.",
    }
    return note("units", *known, unknown[alpha.is_right, stiffness.is_right])


def _stress(beta: Slope, order: Order | None, *, energies_wrong: bool) -> Remark:
    """What energies and strains say of the stresses."""
    why_unknown = "the energies are wrong" if energies_wrong else "too few frames differ by a small strain"
    if beta.is_wrong and not energies_wrong:
        return error(
            "stress",
            f"Stresses do not match the energies, whose slope over the work of the stresses is {beta.value:.3g}",
            f"instead of 1. This would fit {explain_stress(beta.value)}.",
            "Convert to eV/Angstrom^3, positive under tension.",
        )
    if order is not None and not order.is_ase:
        return wrong_order(order, "The strains show that the stresses are")
    known, matches = [], beta.is_right and not energies_wrong
    if matches:
        known.append(f"Stresses match the energies (the slope is {beta.value:.2f}).")
    if order is not None:
        known.append("Their components are in ASE's order.")
    unknown = {
        (True, False): "Cannot tell the order of their components: not all six strains occur in enough frames.",
        (False, True): f"Cannot tell their unit: {why_unknown}.",
        (False, False): f"Cannot tell units, signs and order: {why_unknown}.",
    }
    return note("stress", *known, *[text for key, text in unknown.items() if key == (matches, order is not None)])


def wrong_order(order: Order, evidence: str) -> Remark:
    """The remark on stresses in a wrong order or with wrong signs."""
    if set(order.signs) == {-1} and order.holds == Order().holds:
        return error("stress", f"{evidence} all of the opposite sign. {_ASE_ORDER}: change their signs.")
    remedies = [
        *(["reorder them"] if order.holds != Order().holds else []),
        *(["change the signs of those with a minus"] if -1 in order.signs else []),
    ]
    return error("stress", f"{evidence} in the order {order}. {_ASE_ORDER}: {' and '.join(remedies)}.")
