"""A remark on stresses whose components have another order in a part of the frames: joined files of two programs.

``strain.py`` judges all frames together, so a part hides among the rest. Pairs of similar frames (``similar.py``) show
it: if the stresses of one frame are reordered and those of the other are not, then

    sigma_b - P sigma_a = C epsilon

holds for a permutation P where sigma_b - sigma_a = C epsilon fails badly. In sound data no pair is like this.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.lint.components import Order
from ase_nbody.data.lint.remark import Frames, Remark, error, where
from ase_nbody.data.lint.similar import COLUMNS, ROWS, Changes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# What other programs write: the shears in any order, and the upper or lower triangle row by row.
ORDERS = tuple(
    Order(holds)
    for holds in (
        (0, 1, 2, 4, 3, 5),
        (0, 1, 2, 5, 3, 4),
        (0, 1, 2, 4, 5, 3),
        (0, 1, 2, 5, 4, 3),
        (0, 1, 2, 3, 5, 4),
        (0, 5, 4, 1, 3, 2),
        (0, 5, 1, 4, 3, 2),
    )
)
MIN_PAIRS = 4
MIN_SHARE_IN_ONE_ORDER = 0.25  # of the telling ones; if there are fewer, stresses and strains do not fit at all
MIN_SHARE_TELLING = 0.1  # of the pairs in which the order matters; in noise it is 0.05 at the most
_BETTER = 0.3  # what one explanation leaves, relative to the other, if a pair tells
_MATTERS = 0.25  # of the stress: by how much the two explanations must differ
_STRAINED = 1e-4
_NOISE_ANGSTROM = 0.02  # displacements below this count as none
_RIDGE = 0.01


def remarks(frames: Frames, changes: Changes) -> Iterator[Remark]:
    """The remark on stresses in two orders, or none.

    Args:
        frames: all frames.
        changes: pairs of similar frames.
    """
    known: Mask = np.asarray(np.isfinite(changes.stress).all(axis=1))
    changes = changes.select(known)
    stress = np.stack([frame.stress[ROWS, COLUMNS] for frame in frames]) if frames else np.zeros((0, 6))
    first, second = stress[changes.first], stress[changes.second]
    answer = changes.strain @ _elastic_tensor(changes)  # (P, 6): C epsilon
    size = np.maximum(_length(first), _length(second))

    def misfits(back: list[int]) -> tuple[Array, Array]:
        """What is left if the two frames have one order, and if they have two."""
        a, b = first[:, back], second[:, back]
        return (
            np.minimum(_length(second - first - answer), _length(b - a - answer)),
            np.minimum(_length(b - first - answer), _length(second - a - answer)),
        )

    found = _most_telling([(order, *misfits(_back(order))) for order in ORDERS], size)
    if found is None:
        return
    order, in_one, in_two = found
    n_one, n_two = int(in_one.sum()), int(in_two.sum())
    votes = np.zeros(len(frames), np.int64)
    for pairs, vote in ((in_one, -1), (in_two, 1)):
        for ends in (changes.first, changes.second):
            np.add.at(votes, ends[pairs], vote)
    yield error(
        "contradictions",
        f"In {n_two} of {n_one + n_two} pairs of similar frames, the stresses only agree if the two frames have their",
        f"components in different orders: one in ASE's order ({Order()}), the other perhaps as {order}.",
        "Were files of two programs joined? Bring all stresses into ASE's order, or remove those of one part.",
        "The frames that are named have such neighbours.",
        frames=where(votes > 0),
    )


def _most_telling(misfits: Sequence[tuple[Order, Array, Array]], size: Array) -> tuple[Order, Mask, Mask] | None:
    """The order that explains most, and masks (P,): pairs that fit in one order, and pairs that fit only in two.

    Args:
        misfits: for each order, what is left of each pair (P,) if the two frames have one order, and if they have two.
        size: that of the stresses (P,), to which misfits are compared.

    Returns:
        None if all frames have one order, or if the pairs do not tell.
    """
    best, least = None, np.inf
    for order, one, two in misfits:
        matters = np.maximum(one, two) > _MATTERS * size
        in_one, in_two = matters & (one < _BETTER * two), matters & (two < _BETTER * one)
        telling = in_one.sum() + in_two.sum()
        if in_two.sum() < MIN_PAIRS or in_one.sum() < MIN_SHARE_IN_ONE_ORDER * telling:
            continue
        left = float((np.minimum(one, two) / (size + 1e-300)).sum())
        if telling > MIN_SHARE_TELLING * matters.sum() and left < least:
            best, least = (order, in_one, in_two), left
    return best


def _back(order: Order) -> list[int]:
    """The indices that take stresses of this order into ASE's."""
    return [int(number) for number in np.argsort(order.holds)]


def _length(vectors: Array) -> Array:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def _elastic_tensor(changes: Changes) -> Array:
    """C (strains, stresses) in eV/Angstrom^3 by weighted ridge regression over the strained pairs."""
    strained = np.abs(changes.strain).max(axis=1, initial=0.0) > _STRAINED
    weights = 1.0 / np.hypot(changes.displacement[strained], _NOISE_ANGSTROM)[:, None]
    x, y = changes.strain[strained] * weights, changes.stress[strained] * weights
    square = x.T @ x
    return np.asarray(np.linalg.solve(square + (_RIDGE * np.trace(square) / 6 + 1e-300) * np.eye(6), x.T @ y))
