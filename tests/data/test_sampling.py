"""Batches by the number of atoms: never too many, all structures in turn, the same for the same seed and epoch."""

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from ase_nbody.data import AtomBatches, DataError

SIZES = np.random.default_rng(0).integers(1, 40, size=200).tolist()


def batches(sizes=SIZES, most=64, epochs=10, shuffle=True, seed=0):
    sampler = DistributedSampler(sizes, num_replicas=1, rank=0, shuffle=shuffle, seed=seed)
    return AtomBatches(sampler, sizes, most, epochs if shuffle else 0)


def of_epoch(made, epoch):
    made.sampler.set_epoch(epoch)
    return list(made)


def test_no_batch_has_too_many_atoms_and_none_could_take_the_next():
    made = batches()
    for epoch in range(10):
        found = of_epoch(made, epoch)
        totals = [sum(SIZES[index] for index in batch) for batch in found]
        assert max(totals) <= 64
        heads = [SIZES[batch[0]] for batch in found[1:]]
        assert all(total + head > 64 for total, head in zip(totals[:-1], heads, strict=True))


def test_epochs_have_one_length_other_orders_and_few_left_over():
    made = batches()
    epochs = [of_epoch(made, epoch) for epoch in range(10)]
    assert {len(found) for found in epochs} == {len(made)}
    assert epochs[0] != epochs[1]
    seen = [[index for batch in found for index in batch] for found in epochs]
    for indices in seen:
        assert len(indices) == len(set(indices)) > 0.9 * len(SIZES)
    assert set().union(*seen) == set(range(len(SIZES)))


def test_order_follows_from_seed_and_epoch_alone():
    assert of_epoch(batches(), 7) == of_epoch(batches(), 7)
    assert of_epoch(batches(), 7) != of_epoch(batches(seed=1), 7)


def test_without_shuffling_every_structure_comes_once_in_order():
    assert [index for batch in batches(shuffle=False) for index in batch] == list(range(len(SIZES)))


def test_a_structure_that_fits_no_batch_is_named():
    with pytest.raises(DataError, match=r"structure 2 has 90 atoms, but training.batch_atoms = 64"):
        batches(sizes=[3, 40, 90, 64])
    assert len(batches(sizes=[64, 64, 64])) == 3


def test_the_sampler_stays_at_its_epoch():
    """Workers fetch the first batches of a resumed run before lightning sets the epoch: they had those of epoch 0."""
    sampler = DistributedSampler(SIZES, num_replicas=1, rank=0, shuffle=True, seed=0)
    sampler.set_epoch(7)
    assert list(AtomBatches(sampler, SIZES, 64, 10)) == of_epoch(batches(), 7)
