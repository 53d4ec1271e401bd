"""Which component of the stress answers which strain: the order and the signs of the components.

Between similar frames (``similar.py``) the stress changes by sigma = C epsilon + noise, where the elastic tensor C is
symmetric and positive definite in a stable crystal. Labels with exchanged components have Q C instead, with a
permutation Q; then the largest responses are not on the diagonal. The same is true of the magnitudes |sigma| and
|epsilon|, which also work where the sign of the response is not clear. Both are taken together.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.lint.components import Order, most_alike, spread
from ase_nbody.data.lint.similar import Changes

Array = NDArray[np.float64]

MIN_PAIRS = 20
MIN_PAIRS_FOR_SIGN = 20  # whose largest strain it is
BLOCKS = 8  # of the jackknife
CERTAIN = 2.0  # standard errors
MIN_GAIN = 0.1
MIN_STRENGTH = 0.5  # of a response that is more than noise; a clear one is near 2
MIN_PAIRS_TO_MOVE = 5
OPPOSITE = -0.6  # a response below this is of the opposite sign; a right one is near 1, and a doubtful one near 0
_NOISE_ANGSTROM = 0.02  # displacements below this count as none
_RIDGE = 0.03


def order_of_components(changes: Changes) -> Order | None:
    """The order and signs of the components that the strained frames show; None if they do not tell."""
    known = np.isfinite(changes.stress).all(axis=1) & (np.abs(changes.strain).max(axis=1) > 1e-4)
    changes = changes.select(known)
    if len(changes) < MIN_PAIRS:
        return None
    signed, strength = _responses(changes)
    block = np.unique(changes.first, return_inverse=True)[1] % BLOCKS
    without = [_responses(changes.select(block != left_out)) for left_out in range(BLOCKS)]
    size = np.abs(changes.strain)
    strained = (size > 0.5 * size.max(axis=1, keepdims=True)).sum(axis=0)  # pairs, by component

    order = Order(most_alike(strength))
    moved = [row for row, component in enumerate(order.holds) if row != component]
    clear = strength[range(6), order.holds] > MIN_STRENGTH
    certain = order.gain(strength) > max(MIN_GAIN, CERTAIN * spread([order.gain(table) for _, table in without]))
    if not (certain and clear[moved].all() and (strained[moved] >= MIN_PAIRS_TO_MOVE).all()):
        order = Order()
    signs = []
    for row, component in enumerate(order.holds):
        response = max(table[row, component] for table in (signed, *(table for table, _ in without)))
        enough = strained[component] >= MIN_PAIRS_FOR_SIGN
        signs.append(-1 if enough and response < OPPOSITE else 1)
    order = Order(order.holds, tuple(signs))
    distinct = all(-Order.exchange(a, b).gain(strength) > MIN_GAIN for a, b in itertools.combinations(range(6), 2))
    return order if not order.is_ase or (clear.all() and distinct) else None


def _responses(changes: Changes) -> tuple[Array, Array]:
    """How each stress (row) answers each strain (column), relative to their sizes: with signs, and the strength."""
    weights = 1.0 / np.hypot(changes.displacement, _NOISE_ANGSTROM)
    signed = _regression(changes.strain, changes.stress, weights)
    strain, stress = (
        np.abs(array) - np.average(np.abs(array), axis=0, weights=weights**2)
        for array in (changes.strain, changes.stress)
    )
    return signed, np.abs(signed) + np.maximum(_regression(strain, stress, weights), 0.0)


def _regression(strain: Array, stress: Array, weights: Array) -> Array:
    """C in units of the root mean square of each stress and strain, by weighted ridge regression."""
    x, y = strain * weights[:, None], stress * weights[:, None]
    sizes = [np.sqrt((array**2).mean(axis=0)) for array in (x, y)]
    x, y = (array / np.maximum(size, 1e-2 * size.max() + 1e-300) for array, size in zip((x, y), sizes, strict=True))
    return y.T @ x @ np.linalg.inv(x.T @ x + _RIDGE * len(x) * np.eye(6))
