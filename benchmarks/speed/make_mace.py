"""MACE with random weights. Settings that are not in its name are the defaults of ``mace_run_train``."""

from pathlib import Path

import numpy as np
import torch
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from mace import modules
from mace.calculators import MACECalculator


def make(size: str, way: str, dtype: str, device: str, species: list[str], folder: Path) -> tuple[Calculator, int]:
    """The calculator and the number of its weights. ``size`` names the hidden irreps, such as ``128x0e + 128x1o``."""
    from e3nn import o3  # imported late: mace must first tell torch to load e3nn's constants

    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    numbers = sorted(atomic_numbers[symbol] for symbol in species)
    model = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(size),
        MLP_irreps=o3.Irreps("16x0e"),
        radial_MLP=[64, 64, 64],
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=20.0,
        atomic_numbers=numbers,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1e-3,
        atomic_inter_shift=0.0,
    )
    calculator = MACECalculator(
        models=[model.to(device)],
        device=device,
        default_dtype=dtype,
        compile_mode="default" if way == "compiled" else None,
        enable_cueq=way == "cuEquivariance",
    )
    return calculator, sum(weight.numel() for weight in model.parameters())
