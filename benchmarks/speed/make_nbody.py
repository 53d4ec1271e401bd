"""Our calculator with random weights, on which the speed does not depend."""

import warnings
from importlib import resources
from itertools import combinations_with_replacement
from pathlib import Path

import torch
import yaml
from ase.data import atomic_numbers

from ase_nbody import NBodyCalculator, NBodyConfig, NBodyNetwork
from ase_nbody.checks.dimers import contact


def make(size: str, way: str, dtype: str, device: str, species: list[str], folder: Path) -> tuple[NBodyCalculator, int]:
    """The calculator and the number of its weights.

    Args:
        size: a preset of ``nbody train`` (``small``, ``medium`` or ``large``), or ``record``, the network that holds
            the records for molecules (``benchmarks/accuracy/3bpa.yaml``).
        way: ``eager`` or ``compiled``.
        dtype: ``float32`` or ``float64``.
        device: ``cpu`` or ``cuda``.
        species: chemical symbols.
        folder: not used, because our compiled code is kept in the user's cache.
    """
    # These warnings announce a slower way. Its times must not stand for those of the way that was asked for.
    for slower in ("evaluating without compiled code", "no CUDA graph"):
        warnings.filterwarnings("error", slower)
    torch.manual_seed(0)
    model = NBodyNetwork(network_config(size, species))
    calculator = NBodyCalculator(model, dtype=dtype, device=device, compile=way == "compiled")
    return calculator, sum(weight.numel() for weight in model.parameters())


def network_config(size: str, species: list[str]) -> NBodyConfig:
    """The configuration that a training would make, with repulsion and closest distances."""
    if size == "record":
        content = (Path(__file__).parents[1] / "accuracy" / "3bpa.yaml").read_text()
    else:
        content = (resources.files("ase_nbody.training") / "presets" / f"{size}.yaml").read_text()
    ascending = sorted(species, key=atomic_numbers.__getitem__)
    return NBodyConfig(
        species=tuple(species),
        levels=yaml.safe_load(content)["network"]["levels"],
        energy_scale=1e-3,
        repulsion=True,
        closest_distances={f"{a}-{b}": 0.8 * contact(a, b) for a, b in combinations_with_replacement(ascending, 2)},
    )
