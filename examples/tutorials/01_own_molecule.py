"""# Your own molecule, from nothing to molecular dynamics

You have a molecule and a method that you trust, and no data. This tutorial makes data, looks at them, trains a
network on them, asks how good it is, and runs it. The molecule is acetamide. The method is GFN2-xTB, because it takes
a minute; put your DFT code in its place.

You need `pip install -c constraints.txt ".[train,pretraining]"` and about ten minutes on one core.
`NBODY_TUTORIAL=short` runs everything in seconds, with a network that is good for nothing.
"""

# %%
# ## Data
#
# The network must see what it will be used for. So we run molecular dynamics with the method itself, at a temperature
# above the one that we want to simulate, and keep a frame now and then. Neighbouring frames say the same thing: 20 fs
# between frames is little, 100 fs is better if your method is fast. The test frames come from a run of their own.
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

short = os.environ.get("NBODY_TUTORIAL") == "short"
folder = Path("own_molecule_short" if short else "own_molecule")
folder.mkdir(exist_ok=True)
nbody = [sys.executable, "-m", "ase_nbody.cli"]  # the command `nbody`, whether or not the environment is activated


def sample(n_frames: int, seed: int) -> list[Atoms]:
    """Frames of molecular dynamics at 500 K with energies (eV) and forces (eV/Angstrom)."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CONH2")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, 500, rng=rng)
    dynamics = Langevin(atoms, 1.0 * units.fs, temperature_K=500, friction=0.02 / units.fs, fixcm=False, rng=rng)
    dynamics.run(10 if short else 500)
    frames = []
    for _ in range(n_frames):
        dynamics.run(20)
        frame = Atoms(atoms.numbers, atoms.positions)
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    return frames


for name, n_frames, seed in [("train.extxyz", 30 if short else 200, 0), ("test.extxyz", 10 if short else 100, 1)]:
    if not (folder / name).is_file():  # there if the script is started again
        ase.io.write(folder / name, sample(n_frames, seed))

# %%
# ## Look at the data
#
# Most failures begin here: a wrong unit, forces with the wrong sign, the same frame twice. `nbody lint` finds them
# and says what to do. With so few frames it cannot judge everything, and says that too.
subprocess.run([*nbody, "lint", "train.extxyz", "--test", "test.extxyz"], cwd=folder, check=False)

# %%
# ## Train
#
# Everything has a default. The run writes `runs/train/`, with the model, a report in HTML with learning curves and
# the worst frames, and checkpoints: `--resume` goes on after a kill, and begins if there is nothing to go on from. A
# finished model is kept. To train on other data, move the folder away.
model = "runs/train/model.nbody"
quick = ["preset=small", "training.epochs=1", "training.compile=false"]
command = [*nbody, "train", "train.extxyz", "--threads", "1", "--resume", *(quick if short else [])]
if not (folder / model).is_file():
    subprocess.run(command, cwd=folder, check=True)

# %%
# ## How good is it?
#
# Test frames are those that nobody looked at before. For a force error of 10 meV/Angstrom, a bond that you stretch by
# 0.01 Angstrom (half an eV/Angstrom) is right to 2 %.
subprocess.run([*nbody, "evaluate", model, "test.extxyz"], cwd=folder, check=True)

# %%
# ## Use it
#
# From here on it is ASE. The model relaxes the molecule in a fraction of a second, and its vibrations agree with the
# method's.
from ase.optimize import BFGS

from ase_nbody import NBodyCalculator

atoms = molecule("CH3CONH2")
atoms.calc = NBodyCalculator(folder / model)
BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
print(f"energy of the relaxed molecule: {atoms.get_potential_energy():.3f} eV")

# %%
# `nbody md` runs dynamics that survive a kill and stop by themselves if the molecule breaks. Every model should first
# be asked what happens far from its data: `nbody check` does so.
steps = ["--steps", "20"] if short else ["--ps", "20"]
command = [*nbody, "md", model, "--temperature", "300", *steps, "--output", "runs/md", "--resume"]
subprocess.run(command, cwd=folder, check=not short)
