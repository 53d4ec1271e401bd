"""Find jumps of the energy and its derivatives along a path.

Take a grid of spacing h. Midway between two points, extrapolate from the three points on either side: two parabolas
give two values and two slopes. Where the function is smooth, the two sides agree better and better as h shrinks: their
disagreement falls as h^3 (or at least as h, if only a higher derivative jumps). At a jump it does not fall. So the
places where the two sides disagree more than nearby are scanned again with h/8 and h/64. A disagreement that the last
step has not reduced to a quarter is a jump.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ase_nbody.checks.case import Array

Path = Callable[[Array], Array]  # places in Angstrom (n,) -> energy in eV and forces in eV/Angstrom (n, 1 + components)
QUANTITIES = ("value", "slope", "curvature")
# Weights of six points (n-2 ... n+3): the parabola on the right minus the one on the left, midway, in value and slope.
_VALUE_WEIGHTS = np.array([-3, 10, -15, 15, -10, 3]) / 8.0
_SLOPE_WEIGHTS = np.array([-1, 3, -2, -2, 3, -1])
_REFINEMENT = 8  # each closer scan divides the spacing by this
_SCAN_HALF_WIDTH = 12  # points of a closer scan on either side of its centre
_SMOOTH_RATIO = 0.25  # a disagreement that shrinks to this or less does not come from a jump
_SUSPECTS_PER_QUANTITY = 2  # places that are scanned more closely
_WINDOW_ANGSTROM = 0.25  # to either side of a jump; the jump is measured by how much the quantity changes there
_MIN_CHANGE = 1e-3  # eV, eV/Angstrom, eV/Angstrom^2: a smaller change counts as this


@dataclass(frozen=True)
class Jump:
    """The largest jump along a path.

    Attributes:
        size: as a fraction of how much the quantity changes within 0.25 Angstrom of the jump.
        place: position on the path in Angstrom.
    """

    size: float = 0.0
    place: float = 0.0


def find_jumps(path: Path, grid: Array, samples: Array, known: Iterable[float] = ()) -> dict[str, Jump]:
    """The largest jumps of value, slope and curvature of the energy along a path.

    Args:
        path: gives energies and forces at any places.
        grid: evenly spaced places in Angstrom (n,).
        samples: energies in eV and forces in eV/Angstrom there (n, 1 + components).
        known: places at which a jump is likely.
    """
    h = grid[1] - grid[0]
    if not np.isfinite(samples).all():
        place = grid[np.argwhere(~np.isfinite(samples))[0][0]]
        return dict.fromkeys(QUANTITIES, Jump(np.inf, place))
    found = dict.fromkeys(QUANTITIES, Jump())
    for quantity, suspect in _suspects(grid, samples, known):
        before, after, place = _refined(path, quantity, suspect, h)
        change = _change(grid, samples, suspect)
        sizes = np.where(after > _SMOOTH_RATIO * before, after / change, 0.0)
        for name, size in zip(QUANTITIES, sizes, strict=True):
            found[name] = max(found[name], Jump(float(size), place), key=lambda jump: jump.size)
    return found


def disagreement(samples: Array, h: float) -> Array:
    """How much the two sides disagree in value, slope and curvature of the energy (n - 5, 3).

    Slope and curvature come from the forces, which have more digits than differences of the energy.

    Args:
        samples: energies and forces (n, 1 + components) on an evenly spaced grid.
        h: spacing of the grid in Angstrom.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, 6, axis=0)
    value, slope = np.abs(windows @ _VALUE_WEIGHTS), np.abs(windows @ _SLOPE_WEIGHTS) / h
    return np.stack([value[:, 0], value[:, 1:].max(axis=1), slope[:, 1:].max(axis=1)], axis=1)


def _suspects(grid: Array, samples: Array, known: Iterable[float]) -> list[tuple[int, float]]:
    """Places to scan more closely, each with the index of a quantity.

    They are the known places, and those where a disagreement is larger than the sum of those four points away.
    """
    h = grid[1] - grid[0]
    found = disagreement(samples, h)
    nearby = np.pad(found, ((4, 4), (0, 0)), mode="edge")
    contrast = found / (nearby[:-8] + nearby[8:] + 1e-9)
    suspects = [
        (2, place) for place in known if grid[3] < place < grid[-4]
    ]  # 2: a kink of any order shows in the curvature
    for quantity, left in enumerate(contrast.T):
        for _ in range(_SUSPECTS_PER_QUANTITY):
            spike = int(left.argmax())
            if left[spike] > 1.0:
                suspects.append((quantity, float(grid[spike + 2] + 0.5 * h)))
            left[max(0, spike - 3) : spike + 4] = 0.0
    return suspects


def _refined(path: Path, quantity: int, centre: float, h: float) -> tuple[Array, Array, float]:
    """The largest disagreements (3,) near ``centre`` with spacing h/8 and then with h/64, and the place of the latter.

    Each scan is centred where the one before had its largest disagreement in the quantity. A value that is not finite
    disagrees with all others.
    """
    sizes = []
    for _ in range(2):
        h /= _REFINEMENT
        reach = _SCAN_HALF_WIDTH * h
        places = np.linspace(centre - reach, centre + reach, 2 * _SCAN_HALF_WIDTH + 1)
        samples = path(places)
        if (broken := ~np.isfinite(samples).all(axis=1)).any():
            return np.zeros(3), np.full(3, np.inf), float(places[broken.argmax()])
        found = disagreement(samples, h)
        centre = places[found[:, quantity].argmax() + 2] + 0.5 * h
        sizes.append(found.max(axis=0))
    return sizes[0], sizes[1], float(centre)


def _change(grid: Array, samples: Array, place: float) -> Array:
    """How much the energy, the forces and their slopes change near a place (3,)."""
    near = np.abs(grid - place) <= _WINDOW_ANGSTROM
    values = (samples[:, :1], samples[:, 1:], np.gradient(samples[:, 1:], grid, axis=0))
    return np.maximum([np.ptp(value[near], axis=0).max() for value in values], _MIN_CHANGE)
