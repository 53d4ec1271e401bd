"""Several processes under torchrun: which of them this one is, its share of every batch, and sums over all of them."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import BatchSampler, Sampler

from ase_nbody.data import Sample
from ase_nbody.training.loss import Residuals

_RANK_AND_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # variables that torchrun sets


@dataclass(frozen=True)
class Processes:
    """The processes of a training and which of them this one is.

    Attributes:
        rank: number of this process.
        count: number of processes.
        on_this_machine: how many of them run on this machine.
    """

    rank: int = 0
    count: int = 1
    on_this_machine: int = 1

    @classmethod
    def launched(cls) -> "Processes":
        """Ask torchrun's environment variables; without torchrun there is one process.

        A batch system's tasks are not processes of a training, and neither is a variable that is left over.
        """
        elastic = distributed.is_available() and distributed.is_torchelastic_launched()
        values = [os.environ.get(name, "") for name in (*_RANK_AND_COUNTS, "MASTER_PORT")]
        if not (elastic and all(re.fullmatch("[0-9]{1,9}", value) for value in values)):
            return cls()
        rank, count, here, _ = map(int, values)
        fit = rank < count and 1 <= here <= count  # as torchrun sets them; some may be of another launch
        return cls(rank, count, here) if fit else cls()


class Share(Sampler[list[int]]):
    """The share of one process in every batch: every ``count``-th structure, possibly none.

    The shares of all processes together are the batch that a single process would have.

    Args:
        batches: the batches of all processes.
        processes: the processes and which of them this one is.
        done: number of batches to leave out the first time, in the epoch in which a resumed run was ended.
    """

    def __init__(self, batches: BatchSampler, processes: Processes, done: int = 0) -> None:
        self.batches, self.processes, self._done = batches, processes, done
        self.sampler = batches.sampler  # lightning tells it the epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each batch."""
        done, self._done = self._done, 0
        for batch in itertools.islice(self.batches, done, None):
            yield batch[self.processes.rank :: self.processes.count]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)


def without_labels(sample: Sample) -> Sample:
    """Remove the labels of a sample, so that no loss looks at it: for a process whose share is empty."""
    return replace(sample, labels={name: torch.full_like(values, torch.nan) for name, values in sample.labels.items()})


def summed(values: Tensor) -> Tensor:
    """Sum over all processes, the same in each of them."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gathered(residuals: Sequence[Residuals]) -> list[Residuals]:
    """Collect the residuals of all processes, in each of them, in the CPU's memory."""
    own = [one.to("cpu") for one in residuals]
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    of_all: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(of_all, own)
    return [one for of_one in of_all for one in of_one]
