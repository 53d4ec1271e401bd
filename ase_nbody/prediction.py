"""``Prediction``: what a potential says about structures, as tensors that have names wherever they go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.outputs import PER_STRUCTURE, outputs_of


@dataclass(frozen=True)
class Prediction:
    """Energy, derivatives and further outputs of B structures with N atoms in all. Units: eV, Angstrom, e.

    Attributes:
        energy: total energies (B,), float64.
        energies: per-atom energies (N,), float64; those of one structure sum to its energy.
        forces: forces on the atoms (N, 3) in eV/Angstrom.
        virials: per-atom virials (N, 3, 3), symmetric; those of one structure sum to dE/d(strain).
        parts: for each level, the energies of its parts (P,), without isolated-atom energies.
        outputs: further outputs by name: ``charges`` (N,) in e and ``dipole`` (B, 3) in e Angstrom.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor
    virials: Tensor
    parts: tuple[Tensor, ...]
    outputs: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        """A tensor by its name: ``prediction["forces"]``, ``prediction["charges"]``."""
        return getattr(self, name) if name in _ALWAYS else self.outputs[name]

    def named(self) -> dict[str, Tensor]:
        """All tensors by name, in the order of ``names``."""
        parts = {_part_name(number): energies for number, energies in enumerate(self.parts)}
        return {**{name: getattr(self, name) for name in _ALWAYS}, **parts, **self.outputs}

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor]) -> "Prediction":
        """The inverse of ``named``."""
        rest = {name: tensor for name, tensor in tensors.items() if name not in _ALWAYS}
        parts: list[Tensor] = []
        while (energies := rest.pop(_part_name(len(parts)), None)) is not None:
            parts.append(energies)
        return cls(**{name: tensors[name] for name in _ALWAYS}, parts=tuple(parts), outputs=rest)

    def of_first(self, hierarchy: Hierarchy) -> "Prediction":
        """Leave out what follows the structures of ``hierarchy``, if these are the first of the batch."""

        def first(name: str, tensor: Tensor) -> Tensor:
            return tensor[: hierarchy.n_structures if name in PER_STRUCTURE else len(hierarchy.numbers)]

        parts = zip(self.parts, hierarchy.levels, strict=True)
        return Prediction(
            **{name: first(name, self[name]) for name in _ALWAYS},
            parts=tuple(energies[: len(level.centre)] for energies, level in parts),
            outputs={name: first(name, output) for name, output in self.outputs.items()},
        )

    @staticmethod
    def names(config: NBodyConfig) -> tuple[str, ...]:
        """Names of all tensors that ``potential.evaluate`` gives for a network of this configuration."""
        return (
            *_ALWAYS,
            *map(_part_name, range(len(config.levels))),
            *(output.name for output in outputs_of(config.outputs)),
        )

    @classmethod
    def mean(cls, members: Sequence["Prediction"]) -> "Prediction":
        """The mean over a committee whose members share one hierarchy: of whatever all of them give, in float64."""
        first, *others = [member.named() for member in members]
        shared = [name for name in first if all(name in other for other in others)]
        return cls.from_named({name: _mean_of([one[name] for one in (first, *others)]) for name in shared})


def _mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of what the members of a committee say, in float64; what a single one says as it is."""
    return tensors[0] if len(tensors) == 1 else torch.stack([tensor.double() for tensor in tensors]).mean(0)


_ALWAYS = ("energy", "energies", "forces", "virials")


def _part_name(number: int) -> str:
    return f"part_energies_{number}"
