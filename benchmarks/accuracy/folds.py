"""Recipes for crystals, compared on folds inside the training files, in which each kind of frame has its share.

    python benchmarks/accuracy/folds.py Mo Si Li                     five folds
    python benchmarks/accuracy/folds.py Mo --only 1 --epochs 6       one fold, to sift

Prints RMSE of energies, forces and stresses (meV/atom, meV/Angstrom, GPa) on the fold that was left out, by kind. The
recipe ``default`` is what ``nbody train`` does with periodic data; the others differ from it in what their names say.
Each recipe is trained once and shown twice: as it was trained, and with its read-outs solved
(``training.solve_read_outs``). The frames for validation are a part of the other folds. Finished trainings are not
repeated. The test files are not read.
"""

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
import yaml

from ase_nbody import NBodyNetwork, load_model
from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.training import TrainingConfig, predict, read_splits
from ase_nbody.training.read_outs import solve_read_outs

HERE = Path(__file__).resolve().parent
DATA, RUNS = HERE.parents[2] / "shared" / "data", HERE.parents[1] / "runs" / "folds"
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "alone": {"network": {"embedded_atom": False, "fading": False}},
    "potential": {"network": {"embedded_atom": True}},
    "thorough": {"training": {"effort": "thorough"}},
}
SYMBOLS = ("Si", "Li", "Mo")
N_FOLDS, SEED = 5, 0
GPA = 160.21766


def fold_of(kinds: Sequence[str]) -> np.ndarray:
    """The fold of each frame, from 0: the frames of each kind are dealt out at random."""
    rng, fold = np.random.default_rng(SEED), np.zeros(len(kinds), dtype=int)
    for kind in sorted(set(kinds)):
        members = np.flatnonzero(np.array(kinds) == kind)
        fold[rng.permutation(members)] = np.arange(len(members)) % N_FOLDS
    return fold


def write_fold(symbol: str, number: int) -> Path:
    """The folder with the frames that a fold leaves for training, and the fold itself."""
    folder = RUNS / f"{symbol}-{number + 1}"
    if not (folder / "held_out.extxyz").is_file():
        frames = ase.io.read(DATA / f"mlearn_{symbol}" / "train.extxyz", ":")
        fold = fold_of([atoms.info["config_type"] for atoms in frames])
        folder.mkdir(parents=True, exist_ok=True)
        pairs = list(zip(frames, fold, strict=True))
        ase.io.write(folder / "train.extxyz", [atoms for atoms, own in pairs if own != number])
        ase.io.write(folder / "held_out.extxyz", [atoms for atoms, own in pairs if own == number])
    return folder


def trained(symbol: str, recipe: str, folder: Path, options: argparse.Namespace) -> tuple[Path, TrainingConfig]:
    """The model of a recipe, and the configuration that it was trained with."""
    name = recipe if options.epochs is None else f"{recipe}-{options.epochs}epochs"
    output = folder / f"{name}-seed{options.seed}"
    content: dict[str, Any] = {
        "data": {"train": str(folder / "train.extxyz"), "validation": 20},
        "training": {"seed": options.seed},
        "output": str(output),
        "report": False,
    }
    for entry, values in RECIPES[recipe].items():
        content[entry] = content.get(entry, {}) | values
    if options.epochs is not None:
        content["training"]["epochs"] = options.epochs
    file = folder / f"{output.name}.yaml"
    file.write_text(yaml.safe_dump(content))
    if not (output / "model.nbody").is_file():
        command = [sys.executable, "-m", "ase_nbody.cli", "train", str(file), "--threads=1", "--resume"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output / "model.nbody", TrainingConfig.as_written(output / "config.yaml")


def errors_by_kind(network: NBodyNetwork, frames: Sequence[LabelledStructure], kinds: Sequence[str]) -> list[str]:
    """Errors for each kind, sorted by name, and for all of them."""
    predicted, found = predict(network, frames, torch.float32), []
    for kind in [*sorted(set(kinds)), ""]:
        pairs = [
            pair for pair, own in zip(zip(predicted, frames, strict=True), kinds, strict=True) if kind in ("", own)
        ]
        energy = 1e3 * np.array([(one.energy - frame.energy) / len(frame.structure) for one, frame in pairs])
        forces = 1e3 * np.concatenate([(one.forces - frame.forces).ravel() for one, frame in pairs])
        stress = GPA * np.concatenate([(one.stress - frame.stress).ravel() for one, frame in pairs])
        rmse = [float(np.sqrt(np.nanmean(errors**2))) for errors in (energy, forces, stress)]
        found.append("{:.1f} / {:.0f} / {:.2f}".format(*rmse))
    return found


def show(symbol: str, number: int, recipe: str, options: argparse.Namespace) -> None:
    """The two rows of a recipe."""
    folder = write_fold(symbol, number)
    model, config = trained(symbol, recipe, folder, options)
    held_out = read_labelled(folder / "held_out.extxyz")
    kinds = [atoms.info["config_type"] for atoms in ase.io.read(folder / "held_out.extxyz", ":")]
    network = load_model(model).float().requires_grad_(True)
    before = errors_by_kind(network, held_out, kinds)
    solved = copy.deepcopy(network)
    training, validation = read_splits(config)
    begun = time.process_time()
    solution = solve_read_outs(solved, training, validation, config.training)
    seconds = f"{time.process_time() - begun:.0f} s, ridge {solution.strength}"
    print(f"| {symbol} | {number + 1} | | | {' | '.join([*sorted(set(kinds)), 'all'])} |")
    print(f"| {symbol} | {number + 1} | {recipe} | | {' | '.join(before)} |")
    print(f"| {symbol} | {number + 1} | {recipe}, solved | {seconds} | ", end="")
    print(" | ".join(errors_by_kind(solved, held_out, kinds)), "|", flush=True)


def main() -> None:
    """Train, solve and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("symbols", nargs="+", choices=SYMBOLS)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=["default"])
    numbers = range(1, N_FOLDS + 1)  # beyond them nothing would be left out
    parser.add_argument("--folds", type=int, choices=numbers, default=N_FOLDS, help="the first folds of five alone")
    parser.add_argument("--only", type=int, choices=numbers, help="this fold alone, from 1")
    parser.add_argument("--epochs", type=int, help="default: those of the recipe")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folds = range(options.folds) if options.only is None else [options.only - 1]
    for symbol in options.symbols:
        for number in folds:
            for recipe in options.recipes:
                show(symbol, number, recipe, options)


if __name__ == "__main__":
    main()
