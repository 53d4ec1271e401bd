"""Which component of the stress each of the six numbers of a label is, from how alike numbers and components are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")  # ASE's order
_TIE = 1e-3  # advantage of ASE's order where the data cannot tell


@dataclass(frozen=True)
class Order:
    """What the six numbers of a stress label are.

    Attributes:
        holds: for each number, the component that it is, as an index of ``NAMES``.
        signs: 1 or -1 for each number.
    """

    holds: tuple[int, ...] = tuple(range(6))
    signs: tuple[int, ...] = (1,) * 6

    @property
    def is_ase(self) -> bool:
        """Whether the order and the signs are ASE's."""
        return self == Order()

    @classmethod
    def exchange(cls, first: int, second: int) -> "Order":
        """ASE's order with two components exchanged."""
        holds = list(range(6))
        holds[first], holds[second] = second, first
        return cls(tuple(holds))

    def __str__(self) -> str:
        names = (NAMES[component] for component in self.holds)
        return ", ".join("-" * (sign < 0) + name for name, sign in zip(names, self.signs, strict=True))

    def gain(self, likeness: NDArray[np.float64]) -> float:
        """By how much the likenesses (6, 6) of numbers to components add up to more in this order than in ASE's."""
        return float(likeness[range(6), self.holds].sum() - np.trace(likeness))


def most_alike(likeness: NDArray[np.float64]) -> tuple[int, ...]:
    """For each number (row), the component (column) that it is, such that the sum of the likenesses is largest.

    The likeness may be an elastic tensor C. Then von Neumann's inequality guarantees the answer: C is symmetric and
    positive definite, and of all Q C with an orthogonal Q, such as a permutation, C itself has the largest trace.
    """
    rows, columns = linear_sum_assignment(likeness + _TIE * np.abs(likeness).max() * np.eye(6), maximize=True)
    return tuple(int(columns[row]) for row in rows)


def spread(values: Sequence[float]) -> float:
    """Jackknife's standard error of a quantity, from its values with one block of the data left out at a time."""
    return float(np.sqrt((len(values) - 1) * np.var(values)))
