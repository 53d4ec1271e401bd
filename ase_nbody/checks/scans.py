"""Scans: an energy and its forces along a path, and the jumps in them.

At the middle between two points of a grid of spacing h, the parabolas through three points on either side give two
values and two slopes. Where the function is smooth, they agree better and better as h shrinks, by h^3 (by h at least,
where only a higher derivative jumps); at a jump they do not. So the places where they agree worse than nearby are
looked at again with h/8 and h/64, and what has not shrunk to a quarter in the last step is a jump.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ase_nbody.checks.case import Array

Path = Callable[[Array], Array]  # places in Angstrom (n,) -> energy in eV and forces in eV/Angstrom (n, 1 + components)
QUANTITIES = ("value", "slope", "curvature")
_VALUE = np.array([-3, 10, -15, 15, -10, 3]) / 8.0
_SLOPE = np.array([-1, 3, -2, -2, 3, -1])
_REFINE, _REACH, _SHRINKS = 8, 12, 0.25
_SPIKES = 2  # places looked at closely, for each quantity
_WINDOW = 0.25  # Angstrom to either side: by how much a quantity changes there, its jumps are measured
_LEAST = 1e-3  # eV, eV/Angstrom, eV/Angstrom^2: changes smaller than this count as this


@dataclass(frozen=True)
class Jump:
    """The largest jump along a path.

    Attributes:
        size: as a fraction of how much the quantity changes within 0.25 Angstrom of it.
        place: where on the path, in Angstrom.
    """

    size: float = 0.0
    place: float = 0.0


def find_jumps(path: Path, grid: Array, samples: Array, known: Iterable[float] = ()) -> dict[str, Jump]:
    """Jumps of value, slope and curvature of the energy along a path.

    Args:
        path: gives energies and forces at any places.
        grid: evenly spaced places (n,).
        samples: energy and forces there (n, 1 + components).
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
        for name, size in zip(QUANTITIES, np.where(after > _SHRINKS * before, after / change, 0.0), strict=True):
            found[name] = max(found[name], Jump(float(size), place), key=lambda jump: jump.size)
    return found


def disagreement(samples: Array, h: float) -> Array:
    """By how much the two sides disagree in value, slope and curvature of the energy (n - 5, 3).

    The slope and the curvature are those of the forces, which are known to more digits than differences of the energy.

    Args:
        samples: energy and forces (n, 1 + components) on a grid of spacing ``h``.
        h: in Angstrom.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, 6, axis=0)
    value, slope = np.abs(windows @ _VALUE), np.abs(windows @ _SLOPE) / h
    return np.stack([value[:, 0], value[:, 1:].max(axis=1), slope[:, 1:].max(axis=1)], axis=1)


def _suspects(grid: Array, samples: Array, known: Iterable[float]) -> list[tuple[int, float]]:
    """Quantity and place: known places, and those where a disagreement sticks out from what it is four points away."""
    h = grid[1] - grid[0]
    found = disagreement(samples, h)
    nearby = np.pad(found, ((4, 4), (0, 0)), mode="edge")
    contrast = found / (nearby[:-8] + nearby[8:] + 1e-9)
    suspects = [(2, place) for place in known if grid[3] < place < grid[-4]]  # the curvature shows any kink
    for quantity, left in enumerate(contrast.T):
        for _ in range(_SPIKES):
            spike = int(left.argmax())
            if left[spike] > 1.0:
                suspects.append((quantity, float(grid[spike + 2] + 0.5 * h)))
            left[max(0, spike - 3) : spike + 4] = 0.0
    return suspects


def _refined(path: Path, quantity: int, centre: float, h: float) -> tuple[Array, Array, float]:
    """The largest disagreements (3,) about a place at h/8, those at h/64 where the quantity had its own, and where."""
    sizes = []
    for _ in range(2):
        h /= _REFINE
        places = np.linspace(centre - _REACH * h, centre + _REACH * h, 2 * _REACH + 1)
        found = disagreement(path(places), h)
        centre = places[found[:, quantity].argmax() + 2] + 0.5 * h
        sizes.append(found.max(axis=0))
    return sizes[0], sizes[1], float(centre)


def _change(grid: Array, samples: Array, place: float) -> Array:
    """Ranges of the energy, the forces and their slopes about a place (3,)."""
    near = np.abs(grid - place) <= _WINDOW
    values = (samples[:, :1], samples[:, 1:], np.gradient(samples[:, 1:], grid, axis=0))
    return np.maximum([np.ptp(value[near], axis=0).max() for value in values], _LEAST)
