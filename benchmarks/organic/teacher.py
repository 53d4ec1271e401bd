"""The teacher: the ensemble of four AIMNet2 networks (wB97M-D3(BJ)/def2-TZVPP, MIT), read out of the wheel that has it.

D. Anstine, R. Zubatyuk, O. Isayev, "AIMNet2: a neural network potential to meet your neutral, charged, organic, and
elemental-organic needs", Chemical Science 16 (2025) 10228.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

T = TypeVar("T")
WHEEL = "Auto3D-2.3.1-py3-none-any.whl"
MEMBER = "Auto3D/models/aimnet2_wb97m_ens_f.jpt"
ATOMS_PER_BATCH = 500  # larger batches are no faster on one core
CLOSEST = 0.6  # in sums of covalent radii
LARGEST_SPREAD = 0.35  # eV/Angstrom: above it the networks disagree, and the label is not to be used


class Geometry(NamedTuple):
    """One structure without labels: atomic numbers (atoms,), positions (atoms, 3) in Angstrom, total charge in e."""

    numbers: NDArray
    positions: NDArray
    charge: int = 0


class Label(NamedTuple):
    """What the teacher says of one structure. Energies in eV, forces in eV/Angstrom, charges in e."""

    energy: float  # total energy: from free electrons and nuclei
    forces: NDArray  # (atoms, 3)
    charges: NDArray  # (atoms,)
    energy_std: float  # standard deviation over the four networks
    forces_std: float  # the same of the force components, root mean square over all of them


class Teacher:
    """Labels structures of any sizes on one core.

    Args:
        sources: folder with the wheel of Auto3D.
    """

    def __init__(self, sources: Path) -> None:
        with zipfile.ZipFile(sources / WHEEL) as wheel:
            self._model = torch.jit.load(io.BytesIO(wheel.read(MEMBER)), map_location="cpu").eval()
        # Shapes hardly ever repeat, so code compiled for a shape is compiled in vain.
        torch._C._jit_set_profiling_executor(False)

    def __call__(self, geometries: Sequence[Geometry]) -> list[Label]:
        """The labels, in the order of the structures."""
        return _by_batches(geometries, self._label)

    def members(self, geometries: Sequence[Geometry]) -> list[tuple[NDArray, NDArray]]:
        """What each of the four networks says: energies in eV (4,) and forces in eV/Angstrom (4, atoms, 3)."""
        return _by_batches(geometries, self._of_members)

    def _of_members(self, geometries: list[Geometry]) -> list[tuple[NDArray, NDArray]]:
        """The same of one batch."""
        inputs = _inputs(geometries)
        found = [network(dict(inputs)) for network in self._model.models.children()]
        energies, forces = (
            np.stack([one[key].detach().numpy() for one in found], axis=1).astype(float) for key in ("energy", "forces")
        )
        sizes = [len(geometry.numbers) for geometry in geometries]
        return [(energies[row], forces[row, :, :size]) for row, size in enumerate(sizes)]

    def _label(self, geometries: list[Geometry]) -> list[Label]:
        """The labels of one batch."""
        found = {key: value.detach().numpy() for key, value in self._model(_inputs(geometries)).items()}
        return [
            Label(
                float(found["energy"][row]),
                found["forces"][row, :size].copy(),
                found["charges"][row, :size].copy(),
                float(found["energy_std"][row]),
                float(np.sqrt((found["forces_std"][row, :size] ** 2).mean())),
            )
            for row, size in enumerate(len(geometry.numbers) for geometry in geometries)
        ]


def _by_batches(geometries: Sequence[Geometry], label: Callable[[list[Geometry]], list[T]]) -> list[T]:
    """What ``label`` says of batches of structures, in the order of the structures."""
    found: dict[int, T] = {}
    for batch in _batches([len(geometry.numbers) for geometry in geometries]):
        found.update(zip(batch, label([geometries[index] for index in batch]), strict=True))
    return [found[index] for index in range(len(geometries))]


def _inputs(geometries: list[Geometry]) -> dict[str, torch.Tensor]:
    """What the networks read. Structures are filled up with atoms of number 0, which the networks ignore."""
    # At least two columns: in a batch of single atoms the networks add up the energies of all structures.
    shape = len(geometries), max(2, *(len(geometry.numbers) for geometry in geometries))
    numbers, positions = np.zeros(shape, dtype=np.int64), np.zeros((*shape, 3), dtype=np.float32)
    for row, geometry in enumerate(geometries):
        numbers[row, : len(geometry.numbers)] = geometry.numbers
        positions[row, : len(geometry.numbers)] = geometry.positions
    charges = torch.tensor([float(geometry.charge) for geometry in geometries])
    return {"coord": torch.from_numpy(positions), "numbers": torch.from_numpy(numbers), "charge": charges}


def sound(numbers: NDArray, positions: NDArray) -> bool:
    """Whether no two atoms are so close that no label makes sense."""
    radii = covalent_radii[numbers]
    i, j = np.triu_indices(len(numbers), 1)
    return bool(np.isfinite(positions).all() and (pdist(positions) > CLOSEST * (radii[i] + radii[j])).all())


def _batches(sizes: list[int]) -> list[list[int]]:
    """Indices of structures of about the same size, with at most ATOMS_PER_BATCH atoms, filled up, in a batch."""
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        full = not batches or (len(batches[-1]) + 1) * sizes[index] > ATOMS_PER_BATCH
        if full:
            batches.append([])
        batches[-1].append(index)
    return batches
