"""Several processes under torchrun: who we are, our share of every batch, and sums over all of us."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import BatchSampler, Sampler

from ase_nbody.data import Sample
from ase_nbody.training.loss import Residuals


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
        """As torchrun tells it; one alone without torchrun."""
        if not (distributed.is_available() and distributed.is_torchelastic_launched()):
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))


class Share(Sampler[list[int]]):
    """The part of every batch that falls to this process: every ``count``-th structure; there may be none.

    The parts of all processes together are the batch of one process alone.
    """

    def __init__(self, batches: BatchSampler, processes: Processes) -> None:
        self.batches, self.processes = batches, processes
        self.sampler = batches.sampler  # lightning tells it the epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Indices, batch by batch."""
        for batch in self.batches:
            yield batch[self.processes.rank :: self.processes.count]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)


def without_labels(sample: Sample) -> Sample:
    """The same structure, to which no loss looks: for a process whose share is empty."""
    nothing: dict[str, Any] = {
        name: torch.full_like(getattr(sample, name), torch.nan) for name in ("energy", "forces", "stress")
    }
    return replace(sample, **nothing)


def summed(values: Tensor) -> Tensor:
    """Sum over all processes, the same in each of them."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gathered(residuals: Sequence[Residuals]) -> list[Residuals]:
    """The residuals of all processes, in each of them, in memory of the CPU."""
    own = [one.to("cpu") for one in residuals]
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    of_all: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(of_all, own)
    return [one for of_one in of_all for one in of_one]
