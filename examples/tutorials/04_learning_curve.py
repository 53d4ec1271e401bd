"""# A learning curve: are more data worth their price?

Train on 25, 50, 100 and 200 frames, and plot the error on the same test frames. If the line still falls on doubly
logarithmic axes, more frames help. If it is flat, they do not: the network is too small, the labels are noisy, or the
test frames are of another kind. Run [the first tutorial](01_own_molecule.py) before, which makes the frames. It takes
about half an hour on one core.

`NBODY_TUTORIAL=short` trains for an epoch or two.
"""

# %%
# ## The trainings
#
# `training.epochs` is left out: every training then has the same number of steps, so that a small set is not trained
# less. The validation frames belong to the price, so they are a fifth of each set.
import os
from pathlib import Path

import ase.io
import matplotlib
import torch
from matplotlib import pyplot

from ase_nbody.data import read_labelled
from ase_nbody.files.archive import load_model
from ase_nbody.training import TrainingConfig, evaluate_model, train

matplotlib.use("Agg")
torch.set_num_threads(1)
short = os.environ.get("NBODY_TUTORIAL") == "short"
suffix = "_short" if short else ""
source, folder = Path(f"own_molecule{suffix}"), Path(f"learning_curve{suffix}")
folder.mkdir(exist_ok=True)
frames = ase.io.read(source / "train.extxyz", ":")
test = read_labelled(source / "test.extxyz")
quick = ["preset=small", "training.epochs=1", "training.compile=false"]

sizes = [size for size in ([10, 20] if short else [25, 50, 100, 200]) if size <= len(frames)]
errors = []
for size in sizes:
    data = folder / f"{size}.extxyz"
    ase.io.write(data, frames[:size])
    output = (folder / f"run_{size}").resolve()
    options = [f"data.validation={size // 5}", f"output={output}", *(quick if short else [])]
    config = TrainingConfig.from_yaml(data, options)
    model = Path(config.output) / "model.nbody"
    network = load_model(model if model.is_file() else train(config, resume=True))
    errors.append(evaluate_model(network, test)["forces"]["mae"])
    print(f"{size} frames: {errors[-1]:.1f} meV/Angstrom")

# %%
# ## The curve
figure, axes = pyplot.subplots(figsize=(4, 3), layout="constrained")
axes.loglog(sizes, errors, "o-")
axes.set(xlabel="frames", ylabel="MAE of the forces / meV/Angstrom", xticks=sizes, xticklabels=sizes)
axes.minorticks_off()
figure.savefig(folder / "learning_curve.png", dpi=150)
