"""Print the errors of a trained peer on ``test.xyz`` of a folder as JSON. It runs in the peer's environment."""

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase.calculators.calculator import Calculator


def calculator(peer: str, folder: Path) -> tuple[Calculator, int]:
    """Load the trained model, and return it with the number of its weights."""
    if peer == "mace":
        from mace.calculators import MACECalculator

        made = MACECalculator(model_paths=folder / "model_stagetwo.model", device="cpu", default_dtype="float32")
        return made, sum(weight.numel() for weight in made.models[0].parameters())
    from nequip.integrations.ase import NequIPCalculator

    made = NequIPCalculator._from_saved_model(folder / "best.ckpt", device="cpu")
    return made, sum(weight.numel() for weight in made.model.parameters())


def main() -> None:
    peer, folder = sys.argv[1], Path(sys.argv[2])
    model, weights = calculator(peer, folder)
    energies, forces = [], []
    for atoms in ase.io.read(folder / "test.xyz", ":"):
        atoms.calc = model
        energies.append((atoms.get_potential_energy() - atoms.info["REF_energy"]) / len(atoms))
        forces.append((atoms.get_forces() - atoms.arrays["REF_forces"]).ravel())
    result = {
        "energy MAE (meV/atom)": 1000 * np.abs(energies).mean(),
        "forces MAE (meV/Angstrom)": 1000 * np.abs(np.concatenate(forces)).mean(),
        "weights": weights,
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
