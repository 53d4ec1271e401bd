"""A trained model in the calculator of its package. The interpreter is that of the package's environment."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

from ase.calculators.calculator import Calculator


def make(size: str, way: str, dtype: str, device: str, species: list[str], folder: Path) -> tuple[Calculator, int]:
    """The calculator and the number of its weights.

    Args:
        size: a key of ``PACKAGES``, a blank, and the model: a name or file of ours, or the folder of a peer's training.
        way: ``eager`` or ``compiled``, for packages that know both.
        dtype: ``float32`` or ``float64``, for packages that let the user choose.
        device: ``cpu`` or ``cuda``.
        species: chemical symbols of the structure.
        folder: not used; compiled code is kept beside the model or in the user's cache.
    """
    package, _, model = size.partition(" ")
    return PACKAGES[package](model, way, dtype, device, species)


def nbody(model: str, way: str, dtype: str, device: str, species: list[str]) -> tuple[Calculator, int]:
    """Our calculator on one thread."""
    from ase_nbody import NBodyCalculator
    from ase_nbody.files.archive import load_members

    # This warning announces a slower way. Its times must not stand for those of the way that was asked for.
    warnings.filterwarnings("error", "evaluating without compiled code")
    calculator = NBodyCalculator(model, dtype=dtype, device=device, compile=way == "compiled", threads=1)
    return calculator, sum(weight.numel() for network in load_members(model) for weight in network.parameters())


def mace(model: str, way: str, dtype: str, device: str, species: list[str]) -> tuple[Calculator, int]:
    """The model of the second stage."""
    from mace.calculators import MACECalculator

    path, mode = Path(model) / "model_stagetwo.model", "default" if way == "compiled" else None
    calculator = MACECalculator(model_paths=str(path), device=device, default_dtype=dtype, compile_mode=mode)
    return calculator, sum(weight.numel() for weight in calculator.models[0].parameters())


def nequip(model: str, way: str, dtype: str, device: str, species: list[str]) -> tuple[Calculator, int]:
    """The best checkpoint, in the precision in which it was trained."""
    from nequip.integrations.ase import NequIPCalculator

    checkpoint = Path(model) / "best.ckpt"
    calculator = NequIPCalculator._from_saved_model(checkpoint, device=device)
    weights = sum(weight.numel() for weight in calculator.model.parameters())
    if way == "compiled":
        library = checkpoint.with_suffix(".nequip.pt2")
        if not library.is_file() or library.stat().st_mtime < checkpoint.stat().st_mtime:
            options = ["--device", device, "--mode", "aotinductor", "--target", "ase"]
            compile_ = [Path(sys.executable).with_name("nequip-compile"), checkpoint, library, *options]
            subprocess.run(compile_, check=True, stdout=sys.stderr)
        mapping = {symbol: symbol for symbol in species}
        calculator = NequIPCalculator.from_compiled_model(
            library, device=device, chemical_species_to_atom_type_map=mapping
        )
    return calculator, weights


def nep(model: str, way: str, dtype: str, device: str, species: list[str]) -> tuple[Calculator, int]:
    """The model with the least loss on the validation frames, in calorine's compiled code, which mixes precisions."""
    from calorine.calculators import CPUNEP
    from calorine.nep import read_model

    path = str(Path(model) / "run" / "nep_best.txt")
    return CPUNEP(path), read_model(path).n_parameters


def ace(model: str, way: str, dtype: str, device: str, species: list[str]) -> tuple[Calculator, int]:
    """The fitted model, compiled by JAX in double precision, as its package would have it."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from ace_jax import ACECalculator

    fit = Path(model) / "fit"
    return ACECalculator(str(fit / "model.npz")), json.loads((fit / "config.json").read_text())["len_basis"]


PACKAGES = {"nbody": nbody, "mace": mace, "nequip": nequip, "nep": nep, "ace": ace}
