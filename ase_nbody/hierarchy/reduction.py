"""Sums over the atoms of each structure: torch's own, or torch-scatter's where it is installed, with equal results."""

from torch import Tensor

try:
    from torch_scatter import scatter_sum as _scatter_sum
except ImportError:
    _scatter_sum = None


def sum_by_structure(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sum per-atom values ``(N, ...)`` over the structure ``(N,)`` that each atom belongs to: ``(n_structures, ...)``.

    Only torch-scatter's ``scatter_sum`` is used: its ``segment_csr`` and ``segment_coo`` have wrong second derivatives.
    """
    if n_structures == 1:
        return values.sum(dim=0, keepdim=True)
    if _scatter_sum is not None:
        return _scatter_sum(values, structure, dim=0, dim_size=n_structures)
    return values.new_zeros(n_structures, *values.shape[1:]).index_add(0, structure, values)
