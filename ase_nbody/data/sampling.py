"""Batches that are filled up to a number of atoms, not to a number of structures."""

from collections.abc import Iterator, Sequence

from torch.utils.data import DistributedSampler, Sampler

from ase_nbody.data.labels import DataError


class AtomBatches(Sampler[list[int]]):
    """Batches of at most ``most`` atoms, in the order of a sampler. A structure that does not fit begins a new batch.

    Every epoch has as many batches as the epoch that needs the fewest, so the length is known in advance. Structures
    that are left over differ from epoch to epoch. Without shuffling (``epochs`` = 0) no structure is left over.

    Args:
        sampler: gives the order of each epoch, which follows from its seed and the epoch alone.
        sizes: number of atoms of each structure.
        most: largest number of atoms in a batch.
        epochs: number of epochs of the training; 0 if all of them have the same order.

    Raises:
        DataError: a single structure has more than ``most`` atoms.
    """

    def __init__(self, sampler: "DistributedSampler[int]", sizes: Sequence[int], most: int, epochs: int = 0) -> None:
        if max(sizes) > most:
            raise DataError(
                f"structure {sizes.index(max(sizes))} has {max(sizes)} atoms, but training.batch_atoms = {most}: "
                "raise it, or remove the structure"
            )
        self.sampler, self.sizes, self.most = sampler, sizes, most
        counts, present = [], sampler.epoch
        for epoch in range(max(epochs, 1)):
            sampler.set_epoch(epoch)
            counts.append(sum(1 for _ in self._batches()))
        sampler.set_epoch(present)
        self.count = min(counts)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        for _, batch in zip(range(self.count), self._batches(), strict=False):
            yield batch

    def _batches(self) -> Iterator[list[int]]:
        batch: list[int] = []
        atoms = 0
        for index in self.sampler:
            if batch and atoms + self.sizes[index] > self.most:
                yield batch
                batch, atoms = [], 0
            batch.append(index)
            atoms += self.sizes[index]
        if batch:
            yield batch
