"""What a trained model says of stress labels: their order, signs and unit, by comparison with its own stresses.

A model that has learnt energies and forces predicts stresses in ASE's order: they are derivatives of its energy. So
each number of a label is the component with whose prediction it is correlated. Correlations r are compared as arctanh r
(Fisher), since pressure correlates xx, yy and zz with each other.

A model that has learnt little predicts stresses that mean nothing, and often of another size. It may judge only if all
six components are correlated and as large as the labels are in one of the usual units. What the energies and strains
of the frames say (``agreement.py``) counts more than any model.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.lint.agreement import has_stress, wrong_order
from ase_nbody.data.lint.components import Order, most_alike, spread
from ase_nbody.data.lint.remark import Frames, Remark, error, note
from ase_nbody.data.lint.similar import COLUMNS, ROWS, similar_pairs
from ase_nbody.data.lint.slopes import STRESS_BOUNDS, slope_of, slopes
from ase_nbody.data.lint.strain import order_of_components
from ase_nbody.data.lint.units import STRESS_UNITS, explain_stress
from ase_nbody.text import count_of

Array = NDArray[np.float64]

MIN_FRAMES = 10
MAX_FRAMES = 200  # of a larger data set, these are chosen evenly
MIN_CORRELATION = 0.7  # below it, the model knows nothing of this component
MIN_GAIN = 0.3  # of the sum of arctanh r
CERTAIN = 3.0  # standard errors
BLOCKS = 8  # of the jackknife
# Of predictions and labels, in eV/Angstrom^3 and in the other units; their inverses are the smallest.
MAX_AMPLITUDE_RATIO, MAX_AMPLITUDE_RATIO_OF_UNITS = 3.0, 2.0
_CANNOT_TELL = "The model cannot tell"
_LARGEST = 0.9999  # a correlation above this counts as this


def frames_with_stress(frames: Frames) -> list[LabelledStructure]:
    """The frames whose stresses a model can judge, at most ``MAX_FRAMES`` of them, evenly chosen."""
    found = [frame for frame in frames if has_stress(frame)]
    return found[:: -(-len(found) // MAX_FRAMES) or 1]


def remarks(frames: Frames, predicted: Sequence[LabelledStructure], evidence: Frames | None = None) -> Iterator[Remark]:
    """The remark on the stresses of the frames, by what a model predicts for the same frames; none without stresses.

    Args:
        frames: labelled frames.
        predicted: what the model predicts for each of them.
        evidence: frames whose energies and strains may overrule the model; by default the same frames.
    """
    both = [pair for pair in zip(frames, predicted, strict=True) if all(has_stress(frame) for frame in pair)]
    if not both:
        return
    if len(both) < MIN_FRAMES:
        yield note("stress", f"{_CANNOT_TELL}: only {count_of(len(both), 'frame', 'has', 'have')} a stress.")
        return
    labels, predictions = (
        np.stack([pair[which].stress[ROWS, COLUMNS] for pair in both]) for which in (0, 1)
    )  # (M, 6) each
    order = _order(labels, predictions)
    if order is None:
        yield note("stress", f"{_CANNOT_TELL}: its stresses and the labels are hardly correlated.")
        return
    ratio = _amplitude_ratio(labels, predictions)
    if not _is_plausible(ratio):
        yield note(
            "stress", f"{_CANNOT_TELL}: its stresses are {ratio:.2g} times as large as the labels, which fits no unit."
        )
        return
    beta = slope_of((predictions[:, order.holds] / _without_zeros(labels)).ravel(), STRESS_BOUNDS)
    if order.is_ase and not beta.is_wrong:
        yield note("stress", "The model's stresses agree with the labels component by component.")
    elif _are_right(frames if evidence is None else evidence, order):
        yield note(
            "stress",
            "The model's stresses do not agree with the labels, but energies and strains say that the labels are",
            "right. Do not trust the stresses of this model.",
        )
    elif not order.is_ase:
        yield wrong_order(order, "Compared with the model's stresses, those of the data are")
    else:
        yield error(
            "stress",
            f"The model's stresses are {beta.value:.3g} times the labels. This would fit {explain_stress(beta.value)}.",
            "Convert to eV/Angstrom^3, positive under tension.",
        )


def _are_right(frames: Frames, order: Order) -> bool:
    """Whether energies and strains say that the labels are right: in unit if the order is ASE's, otherwise in order."""
    changes = similar_pairs(frames)
    if order.is_ase:
        return slopes(changes)[1].is_right
    found = order_of_components(changes)
    return found is not None and found.is_ase


def _order(labels: Array, predictions: Array) -> Order | None:
    """The order and signs of the labels (M, 6); None if the predictions do not tell."""
    correlations = _correlations(labels, predictions)
    block = np.arange(len(labels)) % BLOCKS
    without = [_correlations(labels[block != left_out], predictions[block != left_out]) for left_out in range(BLOCKS)]
    order = Order(most_alike(_strength(correlations)))
    gains = [order.gain(_strength(table)) for table in without]
    if order.gain(_strength(correlations)) < max(MIN_GAIN, CERTAIN * spread(gains)):
        order = Order()
    own = np.stack([table[range(6), order.holds] for table in (correlations, *without)])  # (1 + blocks, 6)
    known = np.abs(own[0]) > MIN_CORRELATION
    always = known & (np.sign(own[0]) * own > MIN_CORRELATION).all(axis=0)
    claimed = (own[0] < 0) | (np.array(order.holds) != np.arange(6))  # what would be called wrong
    if not (known.all() and always[claimed].all()):
        return None
    signs = np.sign(own[0])
    if (signs < 0).all():  # a matter of convention, which the unit's remark names
        signs = np.ones(6)
    return Order(order.holds, tuple(int(sign) for sign in signs))


def _amplitude_ratio(labels: Array, predictions: Array) -> float:
    """How much more the predictions vary than the labels."""
    return float(np.linalg.norm(predictions - predictions.mean(axis=0)) / np.linalg.norm(labels - labels.mean(axis=0)))


def _is_plausible(ratio: float) -> bool:
    """Whether predictions and labels are of one size, in eV/Angstrom^3 or with labels in another usual unit."""
    return any(
        abs(np.log(ratio * unit)) < np.log(MAX_AMPLITUDE_RATIO if unit == 1.0 else MAX_AMPLITUDE_RATIO_OF_UNITS)
        for unit in STRESS_UNITS.values()
    )


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
