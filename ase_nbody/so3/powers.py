"""The fragments of A ⊗ A, A ⊗ A ⊗ A, ...: which couplings are needed, so that every fragment is there exactly once.

The factors of a power are equal, so most ways to couple them give the same fragments, up to linear combinations: x ⊗ y
and y ⊗ x are equal, (x ⊗ x)^l vanishes for odd l, and of the ways to couple three factors only some are independent.
Three facts leave few candidates, and a rank decides among them:

* A power with n factors is coupled one factor at a time, ((A ⊗ A)^l12 ⊗ A)^l123 ...
* It is enough to take the factors in a fixed order. The product of any factors, coupled in this order in all ways,
  spans everything that is covariant, so its symmetric part does so for a power. The highest degrees come first: then
  what is still to come is of low degree, and so are the products that must be kept for it.
* Fragments that are dependent before a factor is added are dependent afterwards.

A *factor* is what a product takes at a time: all channels of an irrep, if equal channels are paired; one fragment of
it, if all are. Fragments are compared by their values at fixed points, in float64.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ase_nbody.so3.clebsch_gordan import clebsch_gordan
from ase_nbody.so3.fragments import Irrep, Type

MAX_FRAGMENTS = 1000  # of one power; beyond, a product would take minutes to prepare and to compile
_POINTS = 64
_TOLERANCE = 1e-6  # independent fragments of unit length differ by 1e-2 and more, dependent ones by 1e-13


@dataclass(frozen=True)
class Coupling:
    """One product of neighbouring fragments of the power before with one factor.

    Attributes:
        parent: irrep of the fragments of the power before.
        start: channel of the first of them in the block of their irrep.
        count: how many fragments, side by side in this block.
        width: channels of each.
        factor: irrep of the factor.
        channel: first channel of the factor in its block of A.
        used: channels of the factor, and of each fragment, that are paired.
        results: irreps of the result, one fragment of ``used`` channels for each of the ``count``.
    """

    parent: Irrep
    start: int
    count: int
    width: int
    factor: Irrep
    channel: int
    used: int
    results: tuple[Irrep, ...]


@dataclass(frozen=True)
class _Factor:
    irrep: Irrep
    channel: int
    width: int
    value: NDArray[np.float64]  # (2 l + 1, points)


@dataclass(frozen=True)
class _Fragment:
    factors: tuple[int, ...]
    start: int
    width: int
    value: NDArray[np.float64]  # (2 l + 1, points)


_Known = dict[tuple[tuple[int, ...], Irrep], list[NDArray[np.float64]]]  # by factors and irrep


def product_irreps(first: Irrep, second: Irrep, l_max: int, *, pseudo: bool) -> list[Irrep]:
    """The irreps of a product up to degree ``l_max``, |l1 - l2| <= l <= l1 + l2; pseudo-tensors only if asked for."""
    found = []
    for degree in range(abs(first.degree - second.degree), min(first.degree + second.degree, l_max) + 1):
        odd = (first.degree + second.degree + degree + first.pseudo + second.pseudo) % 2 == 1
        if pseudo or not odd:
            found.append(Irrep(degree, odd))
    return found


def is_kept(irrep: Irrep, l_out: int, *, pseudo: bool) -> bool:
    """Whether a power hands out fragments of this irrep. Pseudo-scalars alone are of no use to anyone."""
    return irrep.degree <= l_out and (not irrep.pseudo or (pseudo and l_out > 0))


@functools.cache
def power_couplings(
    tau: Type, l_out: int, order: int, *, pseudo: bool = False, all_pairs: bool = False
) -> tuple[tuple[Coupling, ...], ...]:
    """The couplings of each power from A ⊗ A on, in the order in which their results stand side by side.

    Args:
        tau: type of A.
        l_out: highest degree of the fragments that are wanted. Powers before the last also have those of higher degree
            that are needed to build on.
        order: highest number of factors.
        pseudo: whether there are pseudo-tensors.
        all_pairs: whether a product pairs all channels, and not only equal ones.

    Raises:
        ValueError: there are more than ``MAX_FRAGMENTS`` fragments.
    """
    _check_number(tau, l_out, order, pseudo=pseudo, all_pairs=all_pairs)
    factors = _factors(tau, all_pairs=all_pairs)
    below: dict[Irrep, list[_Fragment]] = defaultdict(list)
    for number, factor in enumerate(factors):
        below[factor.irrep].append(_Fragment((number,), factor.channel, factor.width, factor.value))
    powers = []
    for power in range(2, order + 1):

        def wanted(parent: Irrep, factor: Irrep, later: int = order - power) -> list[Irrep]:
            found = product_irreps(parent, factor, l_out + later * factor.degree, pseudo=pseudo)
            return [irrep for irrep in found if later or is_kept(irrep, l_out, pseudo=pseudo)]

        couplings, below = _next_power(factors, below, wanted)
        powers.append(couplings)
    return tuple(powers)


def _factors(tau: Type, *, all_pairs: bool) -> list[_Factor]:
    """What a product takes at a time, the highest degree first, with values at the points."""
    points = np.random.default_rng(0)
    found = []
    for irrep, count in sorted(tau.irreps.items(), reverse=True):
        ranges = [(channel, 1) for channel in range(count)] if all_pairs else [(0, count)]
        for channel, width in ranges:
            found.append(_Factor(irrep, channel, width, points.normal(size=(irrep.components, _POINTS))))
    return found


def _next_power(
    factors: Sequence[_Factor],
    below: Mapping[Irrep, Sequence[_Fragment]],
    wanted: Callable[[Irrep, Irrep], list[Irrep]],
) -> tuple[tuple[Coupling, ...], dict[Irrep, list[_Fragment]]]:
    """The couplings that lead from the fragments of one power to those of the next, and these fragments."""
    above: dict[Irrep, list[_Fragment]] = defaultdict(list)
    ends: dict[Irrep, int] = defaultdict(int)  # channels of each irrep so far
    known: _Known = defaultdict(list)
    couplings: list[Coupling] = []
    for number, factor in enumerate(factors):
        for parent, fragments in below.items():
            irreps = wanted(parent, factor.irrep)
            for coupling, results in _runs(parent, fragments, number, factor, irreps, known):
                couplings.append(coupling)
                for irrep in coupling.results:
                    for new in results:
                        above[irrep].append(replace(new[irrep], start=ends[irrep]))
                        ends[irrep] += coupling.used
    return tuple(couplings), above


def _runs(
    parent: Irrep,
    fragments: Sequence[_Fragment],
    number: int,
    factor: _Factor,
    irreps: Sequence[Irrep],
    known: _Known,
) -> list[tuple[Coupling, list[dict[Irrep, _Fragment]]]]:
    """Products of the fragments of one irrep with one factor, and what is new of each; neighbours in one coupling."""
    runs: list[tuple[Coupling, list[dict[Irrep, _Fragment]]]] = []
    for fragment in fragments:
        if fragment.factors[-1] > number:  # factors come in a fixed order
            continue
        key, used = (*fragment.factors, number), min(fragment.width, factor.width)
        new = {
            irrep: _Fragment(key, 0, used, value)
            for irrep in irreps
            if (value := _new_value(fragment.value, factor.value, irrep, known[key, irrep])) is not None
        }
        if not new:
            continue
        one = Coupling(parent, fragment.start, 1, fragment.width, factor.irrep, factor.channel, used, tuple(new))
        if runs and _adjoins(runs[-1][0], one):
            before, results = runs[-1]
            runs[-1] = (replace(before, count=before.count + 1), [*results, new])
        else:
            runs.append((one, [new]))
    return runs


def _check_number(tau: Type, l_out: int, order: int, *, pseudo: bool, all_pairs: bool) -> None:
    """Refuse powers of too many fragments, before any of them is made."""
    repeats = {irrep: count if all_pairs else 1 for irrep, count in tau.irreps.items()}
    refused = sum(repeats.values()) > MAX_FRAGMENTS  # alone; the count below would take long
    for power in range(2, order + 1):
        highest = l_out + (order - power) * tau.l_max
        refused = refused or number_of_fragments(repeats, power, highest, pseudo=pseudo) > MAX_FRAGMENTS
    if refused:
        raise ValueError(
            f"powers of a state {tau} up to {order} factors have more than {MAX_FRAGMENTS} fragments: lower l_max, "
            "body_order or, if all channels are paired, the channels"
        )


def number_of_fragments(repeats: Mapping[Irrep, int], order: int, l_max: int, *, pseudo: bool = True) -> int:
    """How many fragments of degree up to ``l_max`` the symmetric power of a sum of irreps has.

    Each irrep of degree l has one vector of each weight m = -l..l. So the number of fragments of degree l is the number
    of multisets of ``order`` vectors whose weights add up to l, less that for l + 1. Each parity is counted by itself.

    Args:
        repeats: how often the sum has each irrep.
        order: number of factors.
        l_max: highest degree.
        pseudo: whether pseudo-tensors count.
    """
    top = order * max(irrep.degree for irrep in repeats)
    # (factors, inversion gives -1 or not, weight + top); more weights than occur, so that shifts may wrap around
    ways = np.zeros((order + 1, 2, 2 * top + 3))
    ways[0, 0, top] = 1.0
    for irrep, count in repeats.items():
        odd = (irrep.degree + irrep.pseudo) % 2
        for weight in range(-irrep.degree, irrep.degree + 1):
            for _ in range(count):
                for factors in range(1, order + 1):
                    ways[factors] += np.roll(ways[factors - 1], (odd, weight), axis=(0, 1))
    total = 0.0
    for degree in range(min(l_max, top) + 1):
        by_sign = ways[order, :, top + degree] - ways[order, :, top + degree + 1]
        total += by_sign.sum() if pseudo else by_sign[degree % 2]
    return round(total)


def _adjoins(run: Coupling, one: Coupling) -> bool:
    """Whether a product of one fragment continues a run of such products."""
    end = run.start + run.count * run.width
    return replace(one, start=run.start, count=run.count) == run and one.start == end


def _new_value(
    left: NDArray[np.float64], right: NDArray[np.float64], irrep: Irrep, known: list[NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """The product of two fragments at the points, of unit length; None if it depends on those that are ``known``.

    If it is new, its part that is orthogonal to them is added to ``known``.
    """
    l1, l2 = len(left) // 2, len(right) // 2
    coefficients = clebsch_gordan(l1, l2, irrep.degree).numpy().reshape(-1, irrep.components)
    value = coefficients.T @ (left[:, None] * right).reshape(len(coefficients), -1)
    length, scale = np.linalg.norm(value), np.linalg.norm(left) * np.linalg.norm(right) / _POINTS**0.5
    if length < _TOLERANCE * scale:
        return None
    rest = (value / length).ravel()
    for _ in range(2):  # twice is enough (Gram and Schmidt)
        for other in known:
            rest = rest - (other @ rest) * other
    if np.linalg.norm(rest) < _TOLERANCE:
        return None
    known.append(rest / np.linalg.norm(rest))
    return value


def power_type(tau: Type, l_out: int, order: int, *, pseudo: bool = False, all_pairs: bool = False) -> Type:
    """Type of [A, A ⊗ A, A ⊗ A ⊗ A, ...]: the fragments of all powers side by side, up to degree ``l_out``."""
    count: dict[Irrep, int] = defaultdict(int)
    for irrep, number in tau.irreps.items():
        count[irrep] += number * is_kept(irrep, l_out, pseudo=pseudo)
    for couplings in power_couplings(tau, l_out, order, pseudo=pseudo, all_pairs=all_pairs):
        for coupling in couplings:
            for irrep in coupling.results:
                count[irrep] += coupling.count * coupling.used * is_kept(irrep, l_out, pseudo=pseudo)
    return Type.counting(count)
