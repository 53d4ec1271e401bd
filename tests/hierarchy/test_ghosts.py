"""Ghosts change nothing: neither predictions nor what a training learns from them."""

import numpy as np
import pytest
import torch

from ase_nbody.data import LabelledStructure, collate, prepare
from ase_nbody.hierarchy.ghosts import envelope, least_with_ghosts, sizes_of, with_ghosts, with_rows
from ase_nbody.potential import evaluate
from ase_nbody.structure import Structure
from ase_nbody.training.loss import Residuals, loss

WEIGHTS = {"forces": 1.0, "energy": 1.0, "stress": 1.0, "charges": 1.0, "dipole": 1.0}


def labelled(atoms):
    """The structure with labels that no network predicts."""
    random, n_atoms = np.random.default_rng(len(atoms)), len(atoms)
    return LabelledStructure(
        Structure.from_atoms(atoms),
        energy=float(random.normal()),
        forces=random.normal(size=(n_atoms, 3)),
        stress=random.normal(size=(3, 3)),
        charges=random.normal(size=n_atoms),
        dipole=random.normal(size=3),
    )


def batch_of(network, systems, *names):
    return collate(prepare([labelled(systems[name]()) for name in names], network.config))


def larger(hierarchy, more):
    """Sizes with ``more`` ghosts, and twice as many empty columns, than needed."""
    least = least_with_ghosts(sizes_of(hierarchy))
    return tuple(size + more * (2 if axis >= 2 and axis % 4 in (0, 1) else 1) for axis, size in enumerate(least))


def padded(batch, more):
    sizes = larger(batch.hierarchy, more)
    return (
        with_ghosts(batch.hierarchy, sizes),
        with_rows(batch.positions, sizes[1]),
        with_rows(batch.cells, sizes[0]),
        with_rows(batch.total_charges, sizes[0]),
    )


def gradients(network, prediction, batch):
    value = loss(Residuals.of(prediction, batch), 1.0, WEIGHTS)
    weights = list(network.parameters())
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return [
        value,
        *(torch.zeros_like(weight) if grad is None else grad for weight, grad in zip(weights, found, strict=True)),
    ]


def require_equal(network, batch, more):
    network.requires_grad_(True)
    given = (batch.hierarchy, batch.positions, batch.cells, batch.total_charges)
    expected = evaluate(network, *given, create_graph=True)
    whole = evaluate(network, *padded(batch, more), create_graph=True)
    found = whole.of_first(batch.hierarchy)
    for name, tensor in expected.named().items():
        torch.testing.assert_close(found.named()[name], tensor, rtol=1e-12, atol=1e-12)
    n_structures, n_atoms = len(batch.cells), len(batch.positions)
    for ghosts in (whole.energy[n_structures:], whole.energies[n_atoms:], whole.forces[n_atoms:]):
        assert len(ghosts)
        assert not ghosts.any()
    pairs = zip(gradients(network, found, batch), gradients(network, expected, batch), strict=True)
    for of_found, of_expected in pairs:
        scale = float(of_expected.detach().abs().max()) or 1.0
        torch.testing.assert_close(of_found / scale, of_expected / scale, rtol=1e-12, atol=1e-12)
    network.requires_grad_(False)


@pytest.mark.parametrize("more", [0, 5])
def test_predictions_losses_and_gradients_stay(any_network, systems, more):
    """The batch has crystals, a slab, molecules and atoms without neighbours or without heavy parts."""
    names = ("molecule", "left-handed", "no anchors", "slab in a box", "lone hydrogen", "no neighbours", "wire")
    require_equal(any_network, batch_of(any_network, systems, *names), more)


@pytest.mark.parametrize("name", ["no anchors", "lone carbon", "molecule"])
def test_a_batch_may_lack_parts_or_edges(any_network, systems, name):
    require_equal(any_network, batch_of(any_network, systems, name), 3)


def test_networks_of_any_form_give_ghosts_nothing(form, systems):
    require_equal(form, batch_of(form, systems, "molecule", "triclinic", "no anchors"), 2)


def test_charges_and_dipoles_stay(make_network, systems):
    network = make_network(outputs=("charges",))
    require_equal(network, batch_of(network, systems, "molecule", "no neighbours", "lone carbon"), 4)


def test_sizes_cover_all_axes(network, systems):
    hierarchies = [batch_of(network, systems, name).hierarchy for name in ("molecule", "crystal")]
    common = least_with_ghosts(envelope([sizes_of(each) for each in hierarchies]))
    shapes = [[tensor.shape for tensor in with_ghosts(each, common).tensors()] for each in hierarchies]
    assert shapes[0] == shapes[1]
    assert sizes_of(with_ghosts(hierarchies[0], common)) == common
