"""TensorNet of torchmd-net with random weights, in a minimal ASE calculator, because the package has none."""

from collections.abc import Sequence
from pathlib import Path

import ase
import torch
from ase.calculators.calculator import Calculator, all_changes
from torchmdnet.models.model import create_model

SIZES = {"128 x 2 layers": {"embedding_dimension": 128, "num_layers": 2}}
DEFAULTS = {  # those of torchmd-train, except for ``max_num_neighbors``
    "model": "tensornet",
    "num_rbf": 32,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "cutoff_lower": 0.0,
    "cutoff_upper": 5.0,
    "max_z": 100,
    "max_num_neighbors": 128,
    "equivariance_invariance_group": "O(3)",
    "output_model": "Scalar",
    "reduce_op": "sum",
    "derivative": True,
    "atom_filter": -1,
    "prior_model": None,
}


class TensorNetCalculator(Calculator):
    """Gives energy and forces."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.model, self.dtype, self.device = model, dtype, device

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate energy and forces."""
        super().calculate(atoms, properties, system_changes)
        here = {"dtype": self.dtype, "device": self.device}
        numbers = torch.tensor(self.atoms.numbers, device=self.device)
        positions = torch.tensor(self.atoms.positions, **here)
        box = torch.tensor(self.atoms.cell.array, **here) if self.atoms.pbc.all() else None
        energy, forces = self.model(numbers, positions, torch.zeros_like(numbers), box)
        self.results = {"energy": energy.item(), "forces": forces.detach().double().cpu().numpy()}


def make(size: str, way: str, dtype: str, device: str, species: list[str], folder: Path) -> tuple[Calculator, int]:
    """The calculator and the number of its weights."""
    torch.manual_seed(0)
    precision = int(dtype.removeprefix("float"))
    model = create_model({**DEFAULTS, **SIZES[size], "precision": precision}, std=torch.tensor(1e-3))
    model.to(device).eval().requires_grad_(False)
    parameters = sum(weight.numel() for weight in model.parameters())
    return TensorNetCalculator(model, getattr(torch, dtype), device), parameters
