"""# Fine-tuning: begin with a model that knows the chemistry

A network that has learnt ethanol knows much about C-H, C-C, C-O and O-H bonds. To learn another theory, or a
neighbouring molecule, it needs fewer frames than a new network. Here the shipped `ethanol`, which learnt PBE, learns
GFN2-xTB from 40 frames. It takes five minutes on one core.

`NBODY_TUTORIAL=short` trains for an epoch.
"""

# %%
# ## Forty frames of another theory
import os
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

from ase_nbody.data import read_labelled
from ase_nbody.files.archive import load_model
from ase_nbody.training import TrainingConfig, evaluate_model, train

torch.set_num_threads(1)
short = os.environ.get("NBODY_TUTORIAL") == "short"
folder = Path("fine_tuning_short" if short else "fine_tuning")
folder.mkdir(exist_ok=True)


def sample(n_frames: int, seed: int) -> list[Atoms]:
    """Frames of ethanol at 500 K with energies (eV) and forces (eV/Angstrom) of GFN2-xTB."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, 500, rng=rng)
    dynamics = Langevin(atoms, 1.0 * units.fs, temperature_K=500, friction=0.02 / units.fs, fixcm=False, rng=rng)
    dynamics.run(10 if short else 300)
    frames = []
    for _ in range(n_frames):
        dynamics.run(20 if short else 50)
        frame = Atoms(atoms.numbers, atoms.positions)
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    return frames


for name, n_frames, seed in [("train.extxyz", 12 if short else 40, 0), ("test.extxyz", 5 if short else 100, 1)]:
    if not (folder / name).is_file():  # there if the script is started again
        ase.io.write(folder / name, sample(n_frames, seed))

# %%
# ## With and without the start
#
# Energies of the two theories have different zeros, by electronvolts for each atom: the isolated-atom energies of the
# model move to the zero of the new data. The learning rates are lower than those of a new training, because the weights
# are good already. Both are the defaults of a training that starts from a model. The old levels stay free here.
# `network.freeze` holds some of them, which is faster and rarely better.
common = ["data.validation=10" if not short else "data.validation=4"]
common += ["training.epochs=1", "training.compile=false"] if short else ["training.epochs=200"]
settings = {
    "new": ["network.start_from=none"],
    "fine_tuned": ["network.start_from=ethanol"],
}
test = read_labelled(folder / "test.extxyz")
for name, entries in settings.items():
    output = (folder / name).resolve()
    config = TrainingConfig.from_yaml(folder / "train.extxyz", [*common, *entries, f"output={output}"])
    model = output / "model.nbody"
    network = load_model(model if model.is_file() else train(config, resume=True))
    errors = evaluate_model(network, test)
    energy, forces = (errors[quantity]["mae"] for quantity in ("energy", "forces"))
    print(f"{name}: {energy:.2f} meV, {forces:.1f} meV/Angstrom")
