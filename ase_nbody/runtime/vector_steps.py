"""The steps of a block as native code for engines that hold the atoms themselves: pair vectors in, derivatives out.

Such an engine finds the neighbours, forms r_ij, communicates states and derivatives between its processes, and sums
the forces. The steps of ``potential`` remain:

    up      psi_i = level(psi_children, r_ij)
    down    epsilon_i, dE/dr_ij, dE/dpsi_children

Atoms are given by their species alone: index z counts ``NBodyConfig.species``. So at the lowest level, whose children
are atoms, the rows of the level below are one for each species, and the code needs no table of them.

========================  =======================  ====================================================================
argument                  shape                    meaning
========================  =======================  ====================================================================
``vectors``               (3, P, K), dtype         pair vectors in Angstrom; padded ones are longer than the radius
``centre``                (P,)                     species at the centres of the parts
``species``               (P, K)                   species at the ends of the edges; 0 where padded
``own``                   (P,)                     row of the part of the level below with the same centre
``child``                 (P, K)                   row of the child at the end of each edge; 0 where padded
``parents``               (M, Q)                   places ``p * K + k`` of the edges that end at each row; padded with 0
``parents_mask``          (M, Q)                   True where an entry of ``parents`` is real
``rows``                  (components, Q, chann.)  states of the level below
``slope``                 (components, P, chann.)  dE/dpsi of the parts; not at the last level
========================  =======================  ====================================================================

The lowest level takes the first three and ``slope``. The step up takes no ``slope`` and gives the states
(components, P, channels). The step down gives the energies (P,) in eV, dE/dr (3, P, K), and, above the lowest level,
dE/dpsi of the rows. P, K, Q and M may be any numbers of at least two. A part with no edge and an own row of zeros, and
a row at which no edge ends, change nothing.
"""

import functools
from collections.abc import Callable

import torch
from ase.data import atomic_numbers
from torch import Tensor

from ase_nbody.hierarchy.tables import Level
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Ascent, slopes, up_from_vectors
from ase_nbody.runtime.aot import Traceable
from ase_nbody.runtime.compiled import distinct_sizes, pure_function

AT_ATOMS = ("vectors", "centre", "species")
ABOVE = ("own", "child", "parents", "parents_mask", "rows")


def arguments(network: NBodyNetwork, name: str) -> tuple[str, ...]:
    """The arguments of a program (see ``vector_programs``) in order, without the weights, which come first."""
    direction, number = _split(name)
    has_slope = direction == "down" and number < len(network.levels) - 1
    return (*AT_ATOMS, *(ABOVE if number else ()), *(("slope",) if has_slope else ()))


def vector_programs(network: NBodyNetwork) -> dict[str, Callable[[NBodyNetwork], Traceable]]:
    """The functions to trace and compile by name: ``vectors-up-0``, ``vectors-down-0``, ... ."""
    numbers = range(len(network.levels))
    names = [*(f"vectors-up-{number}" for number in numbers[:-1]), *(f"vectors-down-{number}" for number in numbers)]
    return {name: functools.partial(trace_vector_step, name=name) for name in names}


def trace_vector_step(network: NBodyNetwork, name: str) -> Traceable:
    """A step of a block, by its name (see ``vector_programs``)."""
    direction, number = _split(name)
    taken = arguments(network, name)

    def step(network: NBodyNetwork, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        given = dict(zip(taken, tensors, strict=True))
        if direction == "up":
            with torch.no_grad():
                return (_ascent(network, number, given).state,)
        with torch.enable_grad():
            ascent = _ascent(network, number, given)
            by_vectors, by_rows = slopes(ascent, given.get("slope"), lowest=number == 0)
        return (ascent.outputs["energy"].detach(), by_vectors, *([] if by_rows is None else [by_rows]))

    examples, free = _examples(network, number), dict(_FREE)
    return Traceable(pure_function(network, step), [examples[one] for one in taken], [free[one] for one in taken])


def _ascent(network: NBodyNetwork, number: int, given: dict[str, Tensor]) -> Ascent:
    """The step up from the arguments. The species take the place of the atoms."""
    symbols = network.config.species
    device = network.one_hot.device
    numbers = torch.tensor([atomic_numbers[symbol] for symbol in symbols], device=device)
    one_hot = network.one_hot.index_select(0, numbers)
    if number == 0:
        rows = network.embedding(one_hot)
        of_edges = {"own": given["centre"], "child": given["species"]}
        parents = torch.zeros(1, len(symbols), dtype=torch.int64, device=device)
        of_edges |= {"parents": parents, "parents_mask": parents.bool()}  # no derivatives flow to constant states
    else:
        rows = given["rows"]
        of_edges = {one: given[one] for one in ABOVE[:-1]}
    level = Level(
        centre=given["centre"],
        children=torch.arange(rows.shape[1], device=device),
        atom=given["species"],
        shift=torch.zeros_like(given["vectors"], dtype=torch.int64),
        mask=torch.ones_like(given["species"], dtype=torch.bool),
        own=of_edges["own"],
        child=of_edges["child"],
        parents=of_edges["parents"],
        parents_mask=of_edges["parents_mask"],
    )
    return up_from_vectors(network, number, level, rows, given["vectors"], numbers, one_hot)


_FREE = {
    "vectors": (1, 2),
    "centre": (0,),
    "species": (0, 1),
    "own": (0,),
    "child": (0, 1),
    "parents": (0, 1),
    "parents_mask": (0, 1),
    "rows": (1,),
    "slope": (1,),
}  # the axes that may have any size


def _examples(network: NBodyNetwork, number: int) -> dict[str, Tensor]:
    """Arguments of level ``number``, from 0, all zero. No two share a tensor, which would become one argument."""
    sizes = distinct_sizes(network, 251)
    n_parts, width, n_rows, n_parents = (next(sizes) for _ in range(4))
    table = functools.partial(torch.zeros, dtype=torch.int64, device=network.one_hot.device)
    below, above = network.taus[number], network.taus[number + 1]
    return {
        "vectors": network.one_hot.new_zeros(3, n_parts, width),
        "centre": table(n_parts),
        "species": table(n_parts, width),
        "own": table(n_parts),
        "child": table(n_parts, width),
        "parents": table(n_parents, n_rows),
        "parents_mask": table(n_parents, n_rows).bool(),
        "rows": network.one_hot.new_zeros(below.components, n_rows, below.channels),
        "slope": network.one_hot.new_zeros(above.components, n_parts, above.channels),
    }


def _split(name: str) -> tuple[str, int]:
    """Direction and level of a program."""
    _, direction, number = name.split("-")
    return direction, int(number)
