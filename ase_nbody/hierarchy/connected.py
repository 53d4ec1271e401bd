"""Which atoms a chain of pairs connects."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected_groups(n_atoms: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each atom the index of its group (N,); atoms that a chain of pairs connects are one group.

    Args:
        n_atoms: the number of atoms N.
        first: index of one atom of each pair (E,).
        second: index of the other (E,). An image of an atom counts as the atom itself.
    """
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
