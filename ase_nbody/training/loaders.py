"""Batches for the training loop, in an order that depends on the seed and the epoch alone."""

import signal
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from ase_nbody.data import AtomBatches, Batch, LabelledStructure, LazySamples, Sample, collate, prepare
from ase_nbody.dynamics.signals import ENDING_SIGNALS
from ase_nbody.network.config import NBodyConfig
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.processes import Processes, Share, without_labels

# The widths of neighbour tables are padded to multiples of this number, so that one compiled step serves many batches.
_TABLE_WIDTH_MULTIPLE = 8
_WORKER_GRACE_S = 30  # after a signal


class Done(NamedTuple):
    """How far a run had come when its checkpoint was written: whole epochs, and batches of the next one."""

    epochs: int = 0
    batches: int = 0


NOTHING_DONE = Done()


def make_loader(
    frames: Sequence[LabelledStructure],
    network: NBodyConfig,
    config: TrainingConfig,
    processes: Processes,
    *,
    shuffle: bool,
    done: Done = NOTHING_DONE,
) -> DataLoader[Batch]:
    """The loader that gives this process its share of every batch.

    Neighbour tables are made once and kept if they fit into ``data.memory``; otherwise they are made for each batch.

    Args:
        frames: training or validation frames.
        network: the network's configuration, which determines the neighbour tables.
        config: the configuration of the training, with its number of epochs.
        processes: the processes of the training.
        shuffle: true for training: each epoch has its own order, and frames that do not fill a batch are left out;
            false for validation: the order is fixed, every frame occurs, and batches hold ``2 * batch_size`` frames.
        done: what a resumed run has done already.

    Raises:
        DataError: a structure has more atoms than ``training.batch_atoms`` allows.
    """
    options = config.training
    lazy = LazySamples(frames, network)
    on_demand = lazy.memory > config.data.memory * 2**30
    samples: Any = lazy if on_demand else prepare(frames, network, config.data.workers)
    # The sampler's order follows from seed and epoch, so a resumed run sees the batches of an uninterrupted one.
    sampler: Any = DistributedSampler(samples, num_replicas=1, rank=0, shuffle=shuffle, seed=options.seed)
    sampler.set_epoch(done.epochs)  # lightning does so too late for loaders that fetch batches ahead
    batches: Any
    if options.batch_atoms is None:
        size = options.batch_size if shuffle else 2 * options.batch_size
        batches = BatchSampler(sampler, min(size, len(samples)), drop_last=shuffle)
    else:
        sizes = [len(frame.structure) for frame in frames]
        batches = AtomBatches(sampler, sizes, options.batch_atoms, int(options.epochs or 0) if shuffle else 0)
    workers = config.data.workers if on_demand else 0
    return DataLoader(
        samples,
        batch_sampler=Share(batches, processes, done.batches),
        collate_fn=partial(_collate, filler=samples[0]),
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_signals if workers else None,
    )


def typical_batch(loader: DataLoader[Batch]) -> Batch:
    """A batch of the first structures, of as many as batches have on average: the same in a run that was resumed."""
    share: Any = loader.batch_sampler
    samples: Any = loader.dataset
    mean = len(samples) / max(1, len(share)) / share.processes.count
    return _collate([samples[index] for index in range(max(1, round(mean)))], filler=samples[0])


def _collate(members: list[Sample], filler: Sample) -> Batch:
    """A batch of the members. If this process has no share, the batch is ``filler`` without its labels."""
    return collate(members or [without_labels(filler)], multiple=_TABLE_WIDTH_MULTIPLE)


def _outlive_signals(number: int) -> None:
    """Let a worker go on after SIGTERM, Ctrl-C or SIGHUP, which reach all processes, until the training has ended.

    The training needs it for the present batch. Without an end of the training, the worker ends by itself.
    """
    for received in ENDING_SIGNALS:
        signal.signal(received, lambda *arguments: signal.alarm(_WORKER_GRACE_S))
