"""What a trained model says of stress labels: their order, signs and unit, by comparison with its own stresses.

A model that has learnt energies and forces predicts stresses in ASE's order: they are derivatives of its energy. So
each number of a label is the component with whose prediction it is correlated. Correlations r are compared as arctanh r
(Fisher), since pressure correlates xx, yy and zz with each other.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.lint.agreement import has_stress, wrong_order
from ase_nbody.data.lint.components import Order, most_alike, spread
from ase_nbody.data.lint.remark import Frames, Remark, error, note
from ase_nbody.data.lint.similar import COLUMNS, ROWS
from ase_nbody.data.lint.slopes import STRESS_BOUNDS, slope_of
from ase_nbody.data.lint.units import explain_stress

Array = NDArray[np.float64]

MIN_FRAMES = 10
MAX_FRAMES = 200  # of a larger data set, these are chosen evenly
MIN_CORRELATION = 0.7  # below it, the model knows nothing of this component
MIN_GAIN = 0.3  # of the sum of arctanh r
CERTAIN = 3.0  # standard errors
BLOCKS = 8  # of the jackknife
_LARGEST = 0.9999  # a correlation above this counts as this


def frames_with_stress(frames: Frames) -> list[LabelledStructure]:
    """The frames whose stresses a model can judge, at most ``MAX_FRAMES`` of them, evenly chosen."""
    found = [frame for frame in frames if has_stress(frame)]
    return found[:: -(-len(found) // MAX_FRAMES) or 1]


def remarks(frames: Frames, predicted: Sequence[LabelledStructure]) -> Iterator[Remark]:
    """The remark on the stresses of the frames, by what a model predicts for the same frames; none without stresses."""
    both = [pair for pair in zip(frames, predicted, strict=True) if all(has_stress(frame) for frame in pair)]
    if not both:
        return
    if len(both) < MIN_FRAMES:
        yield note("stress", f"The model cannot tell: only {len(both)} frames have a stress.")
        return
    labels, predictions = (
        np.stack([pair[which].stress[ROWS, COLUMNS] for pair in both]) for which in (0, 1)
    )  # (M, 6) each
    order, correlations = _order(labels, predictions)
    if not order.is_ase:
        yield wrong_order(order, "By correlation with the model's stresses,")
        return
    own = np.abs(np.diag(correlations)) > MIN_CORRELATION
    beta = slope_of((predictions[:, own] / _without_zeros(labels[:, own])).ravel(), STRESS_BOUNDS)
    if beta.is_wrong:
        yield error(
            "stress",
            f"The model's stresses are {beta.value:.3g} times the labels. This would fit {explain_stress(beta.value)}.",
            "Convert to eV/Angstrom^3, positive under tension.",
        )
    elif own.all():
        yield note("stress", "The model's stresses agree with the labels component by component.")
    else:
        yield note("stress", "The model cannot tell: its stresses and the labels are hardly correlated.")


def _order(labels: Array, predictions: Array) -> tuple[Order, Array]:
    """The order and signs of the labels (M, 6), and the correlations (6, 6) of labels with predictions."""
    correlations = _correlations(labels, predictions)
    holds = most_alike(_strength(correlations))
    order, block = Order(holds), np.arange(len(labels)) % BLOCKS
    gains = [
        order.gain(_strength(_correlations(labels[block != left_out], predictions[block != left_out])))
        for left_out in range(BLOCKS)
    ]
    moved = [row for row, component in enumerate(holds) if row != component]
    weak = (np.abs(correlations[moved, [holds[row] for row in moved]]) < MIN_CORRELATION).any()
    if weak or order.gain(_strength(correlations)) < max(MIN_GAIN, CERTAIN * spread(gains)):
        order = Order()
    signs = np.where(correlations[range(6), order.holds] < -MIN_CORRELATION, -1, 1)
    if (signs < 0).all():  # a matter of convention, which the unit's remark names
        signs = np.ones(6)
    return Order(order.holds, tuple(int(sign) for sign in signs)), correlations


def _correlations(labels: Array, predictions: Array) -> Array:
    """Pearson's correlations (6, 6) of the numbers of the labels with the predicted components; 0 for constant ones."""
    deviations = [array - array.mean(axis=0) for array in (labels, predictions)]
    lengths = [np.linalg.norm(array, axis=0) for array in deviations]
    scaled = [
        array / np.where(length > 1e-6 * length.max(), length, np.inf)
        for array, length in zip(deviations, lengths, strict=True)
    ]
    return scaled[0].T @ scaled[1]


def _strength(correlations: Array) -> Array:
    return np.arctanh(np.minimum(np.abs(correlations), _LARGEST))


def _without_zeros(values: Array) -> Array:
    """The values, with NaN for those that are zero by symmetry."""
    return np.where(np.abs(values) > 1e-3 * np.abs(values).max(initial=0.0), values, np.nan)
