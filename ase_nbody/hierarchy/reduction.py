"""Sums over the atoms of each structure, by torch-scatter where it is installed and by torch otherwise."""

from torch import Tensor

try:
    from torch_scatter import scatter_sum as _scatter_sum
except ImportError:
    _scatter_sum = None


def sum_by_structure(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sum the atoms' values ``(N, ...)`` over each structure: ``(n_structures, ...)``.

    This uses only ``scatter_sum`` of torch-scatter, because ``segment_csr`` and ``segment_coo`` have wrong second
    derivatives.

    Args:
        values: one for each atom (N, ...).
        structure: the structure that each atom belongs to (N,).
        n_structures: number of structures.
    """
    if n_structures == 1:
        return values.sum(dim=0, keepdim=True)
    if _scatter_sum is not None:
        return _scatter_sum(values, structure, dim=0, dim_size=n_structures)
    return values.new_zeros(n_structures, *values.shape[1:]).index_add(0, structure, values)
