"""States and their types tau. Kondor 2018, section 3: a state is a direct sum of irreps, tau_l of each degree l.

An irrep of degree l in a state is a fragment: 2 l + 1 numbers that a rotation mixes only with each other. All fragments
of one irrep together are the isotypic part of the state, one block ``(2 l + 1, parts, tau_l)``.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# A state: dense ``(components, parts, channels)``, or its blocks in the order of ``Type.irreps``.
State = Tensor | tuple[Tensor, ...]


def degrees(l_max: int) -> list[int]:
    """The degree l of each of the ``(l_max + 1)^2`` components: 0, 1, 1, 1, 2, ..."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def by_degree(state: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The blocks of a state by degree l = 0, 1, 2, ..., with 1, 3, 5, ... components along ``dim``."""
    return state.split([2 * degree + 1 for degree in range(math.isqrt(state.shape[dim]))], dim)


class Irrep(NamedTuple):
    """How a fragment turns: as harmonics of ``degree`` l; under inversion by (-1)^l, or by -(-1)^l if ``pseudo``."""

    degree: int
    pseudo: bool = False

    @property
    def components(self) -> int:
        """Components of a fragment, 2 l + 1."""
        return 2 * self.degree + 1

    def __str__(self) -> str:
        return f"{self.degree}{'p' if self.pseudo else ''}"


@dataclass(frozen=True)
class Type:
    """The type tau = (tau_0, ..., tau_l_max) of a state: how many fragments of each degree l it holds.

    A type is uniform if all degrees have one multiplicity and there are no pseudo-tensors. Its states are dense tensors
    ``((l_max + 1)^2, parts, channels)``. States of any other type are tuples of blocks within a level. Between levels
    they are dense too (see ``dense``): each block is filled with zeros to the highest multiplicity.

    Attributes:
        tau: multiplicity of each degree, for fragments of natural parity (-1)^l.
        pseudo: the same for pseudo-tensors, whose parity is -(-1)^l. Its components follow those of ``tau``.

    Raises:
        ValueError: there is no fragment of degree 0 and natural parity, or a multiplicity is negative.
    """

    tau: tuple[int, ...]
    pseudo: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.tau or self.tau[0] < 1 or min(*self.tau, *self.pseudo, 0) < 0:
            raise ValueError(
                f"a type needs tau_0 >= 1 and no negative multiplicity, got tau={self.tau}, pseudo={self.pseudo}"
            )

    @classmethod
    def uniform(cls, channels: int, l_max: int) -> "Type":
        """The type with ``channels`` fragments of each degree up to ``l_max``.

        Raises:
            ValueError: there are no channels, or ``l_max`` is negative.
        """
        if channels < 1 or l_max < 0:
            raise ValueError(f"a type needs channels >= 1 and l_max >= 0, got channels={channels}, l_max={l_max}")
        return cls((channels,) * (l_max + 1))

    @classmethod
    def counting(cls, multiplicity: Mapping[Irrep, int]) -> "Type":
        """The type with these multiplicities of irreps; those that are missing count as zero."""

        def row(pseudo: bool) -> tuple[int, ...]:
            present = [irrep.degree for irrep, count in multiplicity.items() if irrep.pseudo == pseudo and count]
            return tuple(multiplicity.get(Irrep(degree, pseudo), 0) for degree in range(max(present, default=-1) + 1))

        return cls(row(False), row(True))

    @property
    def is_uniform(self) -> bool:
        """Whether all degrees have one multiplicity and there are no pseudo-tensors."""
        return not self.pseudo and len(set(self.tau)) == 1

    @property
    def channels(self) -> int:
        """Length of the last dimension of a dense state: the highest multiplicity."""
        return max((*self.tau, *self.pseudo))

    @property
    def l_max(self) -> int:
        """Highest degree of the fragments of natural parity."""
        return len(self.tau) - 1

    @property
    def components(self) -> int:
        """Length of the leading dimension of a dense state; ``(l_max + 1)^2`` without pseudo-tensors."""
        return len(self.tau) ** 2 + len(self.pseudo) ** 2

    @property
    def irreps(self) -> dict[Irrep, int]:
        """The irreps that the state has, with their multiplicities: by degree, and pseudo-tensors last."""
        rows = ((False, self.tau), (True, self.pseudo))
        return {Irrep(degree, pseudo): count for pseudo, row in rows for degree, count in enumerate(row) if count > 0}

    @property
    def fragments(self) -> int:
        """Number of fragments of all degrees."""
        return sum(self.tau) + sum(self.pseudo)

    def truncate(self, l_max: int) -> "Type":
        """The same type without degrees above ``l_max``."""
        return Type(self.tau[: l_max + 1], self.pseudo[: l_max + 1])

    def without_pseudo(self) -> "Type":
        """The same type without pseudo-tensors."""
        return Type(self.tau)

    def within(self, other: "Type") -> "Type":
        """The same type without irreps that ``other`` lacks."""
        return Type.counting({irrep: count for irrep, count in self.irreps.items() if irrep in other.irreps})

    def blocks(self, state: State) -> tuple[Tensor, ...]:
        """The blocks ``(2 l + 1, parts, tau_l)`` of a state in the order of ``irreps``."""
        if not isinstance(state, Tensor):
            return state
        starts = {False: 0, True: len(self.tau) ** 2}
        return tuple(
            state.narrow(0, starts[irrep.pseudo] + irrep.degree**2, irrep.components)[..., :count]
            for irrep, count in self.irreps.items()
        )

    def state(self, blocks: tuple[Tensor, ...]) -> State:
        """The state that has these blocks, in the form that states of this type have within a level."""
        return torch.cat(blocks) if self.is_uniform else blocks

    def dense(self, state: State) -> Tensor:
        """A state as one tensor ``(components, parts, channels)``, filled with zeros."""
        if isinstance(state, Tensor):
            return state
        given = iter(state)
        rows: list[Tensor] = []
        for pseudo, row in ((False, self.tau), (True, self.pseudo)):
            for degree, count in enumerate(row):
                parts = state[0].shape[1]
                block = next(given) if count else state[0].new_zeros(Irrep(degree, pseudo).components, parts, 0)
                rows.append(functional.pad(block, (0, self.channels - count)))
        return torch.cat(rows)

    def __str__(self) -> str:
        return " + ".join(f"{count}x{irrep}" for irrep, count in self.irreps.items())


_TERM = re.compile(r"\s*(\d{1,9})\s*x\s*(\d{1,3})\s*")


def parse_type(text: str) -> tuple[int, ...]:
    """The multiplicities by degree that a string such as ``64x0 + 32x1 + 16x2`` names, in any order.

    Raises:
        ValueError: it is not such a sum, names a degree twice, or leaves out a degree below the highest.
    """
    matches = [_TERM.fullmatch(term) for term in text.split("+")]
    if not all(matches):
        raise ValueError(f"{text[:100]!r} is not a type: write 'multiplicity x degree', as in '64x0 + 32x1 + 16x2'")
    terms = [(int(match[2]), int(match[1])) for match in matches if match]
    named = dict(terms)
    if len(named) < len(terms):
        raise ValueError(f"{text[:100]!r} names a degree twice")
    if sorted(named) != list(range(len(named))) or min(named.values()) < 1:
        raise ValueError(f"{text[:100]!r} must give every degree from 0 to its highest at least one fragment")
    return tuple(named[degree] for degree in range(len(named)))


def added(tau: Type, state: State, tau_other: Type, other: State) -> State:
    """The sum of two states of types ``tau`` and ``tau_other``: it has the irreps of ``tau``, among them the other's.

    Both have the same multiplicity of each irrep that both have.
    """
    if isinstance(state, Tensor) and isinstance(other, Tensor):
        if len(other) == len(state):
            return state + other
        low, high = state.split([other.shape[0], state.shape[0] - other.shape[0]])
        return torch.cat([low + other, high])
    terms = dict(zip(tau_other.irreps, tau_other.blocks(other), strict=True))
    pairs = zip(tau.irreps, tau.blocks(state), strict=True)
    return tau.state(tuple(block + terms[irrep] if irrep in terms else block for irrep, block in pairs))
