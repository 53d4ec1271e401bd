"""How the energies change compared with the work of forces and stresses between similar frames.

    E_b - E_a = alpha W_forces + beta W_stress

If all units and signs are ASE's, alpha and beta are 1. Their values tell the unit and the sign: forces in
kcal/mol/Angstrom give alpha = 1/23, energies in Hartree with forces in Hartree/Bohr give 1/0.529 = 1.89, gradients
instead of forces -1. Every pair of frames gives a value. The median counts, and the quartiles say how far to trust it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.lint.similar import Changes

Array = NDArray[np.float64]

_SMALLEST_WORK = 1e-6  # eV
_DOMINANCE = 3.0  # a term is judged by pairs in which it is this much larger than the other
_TRIMMED = 0.75  # share of the pairs that the joint regression keeps


@dataclass(frozen=True)
class Bounds:
    """When a slope can be trusted, and when it is right.

    Attributes:
        pairs: smallest number of pairs.
        width: largest distance of the quartiles, relative to the median.
        right: largest right slope; the smallest is its inverse.
        wrong: smallest wrong slope above 1; the largest one below 1 is its inverse.
    """

    pairs: int
    width: float
    right: float
    wrong: float


# 1.89 is the smallest factor by which usual units of energies and forces differ; below its square root, 1 is nearer.
ENERGY_BOUNDS = Bounds(pairs=16, width=1.0, right=1.37, wrong=1.37)
STRESS_BOUNDS = Bounds(pairs=6, width=2.0, right=4.0, wrong=4.0)  # units of stress differ by factors above 100
STIFFNESS_BOUNDS = Bounds(
    pairs=1, width=2.0, right=3.0, wrong=5.0
)  # Badger's rule is right within about 1.5; units differ by 13


@dataclass(frozen=True)
class Slope:
    """A slope with its uncertainty: median and quartiles over the pairs of frames, and the number of pairs."""

    value: float
    low: float
    high: float
    count: int
    bounds: Bounds

    @property
    def is_clear(self) -> bool:
        """Whether the pairs agree well enough to judge the labels."""
        narrow = self.high - self.low < self.bounds.width * abs(self.value)
        return self.count >= self.bounds.pairs and narrow and self.low * self.high > 0.0

    @property
    def is_right(self) -> bool:
        """Whether units and signs are ASE's: the slope is within the bounds by twice its standard error."""
        lowest, highest = self._interval
        return self.is_clear and 1.0 / self.bounds.right < lowest and highest < self.bounds.right

    @property
    def is_wrong(self) -> bool:
        """Whether units and signs cannot be ASE's: the slope is outside of the bounds by twice its standard error."""
        lowest, highest = self._interval
        return self.is_clear and not (highest > 1.0 / self.bounds.wrong and lowest < self.bounds.wrong)

    @property
    def _interval(self) -> tuple[float, float]:
        """The median less and plus twice its standard error, near the distance of the quartiles over sqrt(count)."""
        error = 2.0 * (self.high - self.low) / np.sqrt(max(self.count, 1))
        return self.value - error, self.value + error


def slope_of(ratios: Array, bounds: Bounds) -> Slope:
    """The slope that the ratios (n,) of single pairs show; NaN are left out."""
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return Slope(np.nan, np.nan, np.nan, 0, bounds)
    low, value, high = (float(number) for number in np.percentile(ratios, [25, 50, 75]))
    return Slope(value, low, high, len(ratios), bounds)


def slopes(changes: Changes) -> tuple[Slope, Slope]:
    """alpha, from pairs with the same cell if there are enough, and beta, from pairs with different cells."""
    forces, stress = changes.force_work, (changes.volume_stress * changes.strain).sum(axis=1)
    energy, strained = changes.energy, np.abs(changes.strain).max(axis=1) > 1e-4
    fixed = np.isfinite(energy + forces) & ~strained & (np.abs(forces) > _SMALLEST_WORK)
    if fixed.sum() >= 4 * ENERGY_BOUNDS.pairs:  # the nearer half is the more exact one
        fixed &= changes.displacement <= np.median(changes.displacement[fixed])
    known = np.isfinite(energy + forces + stress) & strained
    if fixed.sum() >= ENERGY_BOUNDS.pairs:
        alpha = slope_of(energy[fixed] / forces[fixed], ENERGY_BOUNDS)
        factors = alpha.value if alpha.is_clear else 1.0, 1.0
    else:
        factors = _joint_regression(forces[known], stress[known], energy[known])
        work, other = factors[0] * forces, factors[1] * stress
        chosen = known & (np.abs(work) * _DOMINANCE > np.abs(other)) & (np.abs(forces) > _SMALLEST_WORK)
        alpha = slope_of((energy[chosen] - other[chosen]) / forces[chosen], ENERGY_BOUNDS)
    # beta needs pairs between which the forces do little. The energies say so, whatever the unit of the stresses.
    change = 0.5 * np.abs((changes.volume_stress_change * changes.strain).sum(axis=1))
    of_forces = abs(factors[0]) * np.maximum(_DOMINANCE * np.abs(forces), np.abs(changes.force_work_change))
    chosen = known & (np.abs(stress) > np.maximum(change, _SMALLEST_WORK)) & (np.abs(energy) > of_forces)
    beta = slope_of((energy[chosen] - factors[0] * forces[chosen]) / stress[chosen], STRESS_BOUNDS)
    return alpha, beta


def _joint_regression(forces: Array, stress: Array, energy: Array) -> tuple[float, float]:
    """Both slopes from all pairs at once; each pair counts the same, and the worst ones are left out."""
    sizes = [float(np.sqrt(np.mean(work**2))) if len(work) else 0.0 for work in (forces, stress)]
    if min(sizes) < _SMALLEST_WORK:
        return 1.0, 1.0
    terms = np.stack([forces / sizes[0], stress / sizes[1]], axis=1)
    length = np.maximum(np.linalg.norm(terms, axis=1), 1e-6)
    terms, target = terms / length[:, None], energy / length
    kept = np.ones(len(target), dtype=np.bool_)
    for _ in range(10):
        solution = np.linalg.lstsq(terms[kept], target[kept], rcond=None)[0]
        residual = np.abs(target - terms @ solution)
        kept = residual <= np.quantile(residual, _TRIMMED)
    return float(solution[0] / sizes[0]), float(solution[1] / sizes[1])
