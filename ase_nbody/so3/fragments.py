"""States and their types tau. Kondor 2018, section 3: a state is a direct sum of irreps, tau_l of each degree l.

An irrep of degree l in a state is a fragment: 2 l + 1 numbers that a rotation mixes only with each other.
"""

import math
from dataclasses import dataclass

from torch import Tensor


def degrees(l_max: int) -> list[int]:
    """The degree l of each of the ``(l_max + 1)^2`` components: 0, 1, 1, 1, 2, ..."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def by_degree(state: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The blocks of a state by degree l = 0, 1, 2, ..., with 1, 3, 5, ... components along ``dim``."""
    return state.split([2 * degree + 1 for degree in range(math.isqrt(state.shape[dim]))], dim)


@dataclass(frozen=True)
class Type:
    """The type tau = (tau_0, ..., tau_l_max) of a state: how many fragments of each degree l it holds.

    All degrees have one multiplicity here, ``tau_l = channels``, so that a state is one dense tensor
    ``((l_max + 1)^2, parts, channels)``.

    Raises:
        ValueError: there are no channels, or ``l_max`` is negative.
    """

    channels: int
    l_max: int

    def __post_init__(self) -> None:
        if self.channels < 1 or self.l_max < 0:
            raise ValueError(
                f"a type needs channels >= 1 and l_max >= 0, got channels={self.channels}, l_max={self.l_max}"
            )

    @property
    def tau(self) -> tuple[int, ...]:
        """Multiplicity of each degree."""
        return (self.channels,) * (self.l_max + 1)

    @property
    def components(self) -> int:
        """Length of the leading dimension of a state, ``(l_max + 1)^2``."""
        return (self.l_max + 1) ** 2

    def truncate(self, l_max: int) -> "Type":
        """The same type without degrees above ``l_max``."""
        return Type(self.channels, min(l_max, self.l_max))

    def __str__(self) -> str:
        return " + ".join(f"{self.channels}x{degree}" for degree in range(self.l_max + 1))
