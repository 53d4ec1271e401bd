"""What a recording reads is what the present structure says. The recorded kernels themselves: see ``test_gpu.py``."""

import pytest
import torch

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.runtime.cuda_graph import CudaGraphs


def test_an_interrupt_leaves_no_tables_of_another_structure(network, systems, hierarchy_of, monkeypatch):
    """Both structures have tables of the same sizes, and so one recording."""
    atoms = systems["molecule"]()
    turned = atoms[::-1]
    first, other = hierarchy_of(network, atoms), hierarchy_of(network, turned)
    graphs, geometry = CudaGraphs(lambda *_: None), (torch.zeros(len(atoms), 3),)
    expected = [table.clone() for table in graphs._loaded(first, geometry).hierarchy.tensors()]
    copy, copied = torch.Tensor.copy_, []

    def interrupted(there, table):
        copied.append(there)
        if len(copied) > 2:
            raise KeyboardInterrupt
        return copy(there, table)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", interrupted)
        with pytest.raises(KeyboardInterrupt):
            graphs._loaded(other, geometry)
    assert len(graphs._recordings) == 1
    found: Hierarchy = graphs._loaded(first, geometry).hierarchy
    for table, before in zip(found.tensors(), expected, strict=True):
        assert torch.equal(table, before)
