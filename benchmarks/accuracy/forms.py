"""Train networks of every form on the same data for the same time, and compare errors, speed and size.

    python benchmarks/accuracy/forms.py train [TASK ...] [--forms FORM ...] [--minutes 10] [--seeds 1] [--test]
    python benchmarks/accuracy/forms.py speed [--forms FORM ...] [--channels 64] [--compiled] [--structure "water 192"]

A task is ``acac``, ``3bpa`` or ``ethanol`` (the ``TASK.yaml`` here, without pretraining), or one of ``TASKS``:
``silicon`` and ``water``. A form changes all levels of the network; see ``FORMS``. ``molecules``, for water, makes the
parts of the second level molecules. ``train`` measures the CPU time of an epoch on a short run, and then trains for as
many epochs as fill the minutes; ``--epochs`` gives their number instead, since other programs on a machine lengthen
CPU times too. It shows errors on the validation frames, and with ``--test`` those on the test frames.
Runs go to ``runs/forms/``, and a finished run is not trained again. ``speed`` prints CPU milliseconds for each
evaluation on one core: the fastest of many, taken in turn, because other programs disturb a machine in phases.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ase_nbody.engines.molecules import label_molecules

HERE = Path(__file__).resolve().parent
RUNS = HERE.parents[1] / "runs" / "forms"
sys.path.append(str(HERE.parent / "speed"))

# The entries of both levels that a form changes. ``falling`` stands for 64x0 + 32x1 + 16x2 + 8x3, with 64 channels.
FORMS: dict[str, dict[str, Any]] = {
    "gaunt": {},
    "clebsch_gordan": {"product": "clebsch_gordan"},
    "first_order": {"product": {"first_order": "clebsch_gordan"}},
    "zeroth_order": {"product": {"zeroth_order": "clebsch_gordan"}},
    "both_parities": {"product": "clebsch_gordan", "parity": "both"},
    "falling": {"channels": "falling"},
    "falling_clebsch_gordan": {"channels": "falling", "product": "clebsch_gordan"},
    "falling_both": {"channels": "falling", "product": "clebsch_gordan", "parity": "both"},
    "children": {"children_gate": True},
    "molecules": {},
}

PROBE_EPOCHS = 4
_SMALL = {"radius": 5.0, "channels": 32, "message_channels": 16}


def _data(folder: str) -> dict[str, Any]:
    """The entry ``data`` of a set in ``shared/data``."""
    files = {name: str(HERE.parents[2] / "shared" / "data" / folder / f"{name}.extxyz") for name in ("train", "test")}
    return {**files, "validation": 20}


# Tasks that have no file of their own.
TASKS: dict[str, dict[str, Any]] = {
    "water": {
        "data": _data("water_pbe0"),
        "network": {
            "levels": [
                {"parts": "all", **_SMALL},
                {"parts": "heavy", "children": "heavy", **_SMALL, "l_out": 0},
            ],
            "embedded_atom": False,
            "fading": False,
        },
        "training": {"batch_size": 1, "energy_weight": 1.0, "compile": False},
    },
    "silicon": {
        "data": _data("mlearn_Si"),
        "network": {
            "levels": [{"parts": "all", **_SMALL}, {"parts": "all", **_SMALL, "l_out": 0}],
            "embedded_atom": False,
            "fading": False,
        },
        "training": {"batch_size": 1, "energy_weight": 0.1, "stress_weight": 0.1, "compile": False},
    },
}


def changed(level: dict[str, Any], form: str) -> dict[str, Any]:
    """The entries of a level in another form."""
    changes = dict(FORMS[form])
    if form == "molecules" and level["parts"] != "all":
        level = {key: value for key, value in level.items() if key != "children"}
        changes["parts"] = "labels"
    if changes.get("channels") == "falling":
        most = level.get("channels", 64)
        changes["channels"] = " + ".join(f"{most // 2**degree}x{degree}" for degree in range(4))
        level = {key: value for key, value in level.items() if key != "l_max"}
    return {**level, **changes}


def labelled(file: Path) -> Path:
    """A copy of a data set in which the molecules of each frame are labelled."""
    copy = RUNS / f"{file.parent.name}-{file.stem}-molecules.extxyz"
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        frames = ase.io.read(file, ":")
        for atoms in frames:
            atoms.set_array("parts", label_molecules(atoms))
        partial = copy.with_name(f"{copy.name}.partial")
        ase.io.write(partial, frames, format="extxyz")
        os.replace(partial, copy)
    return copy


def configuration(task: str, form: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a training, without its number of epochs."""
    file = HERE / f"{task}.yaml"
    content: dict[str, Any] = TASKS[task] if task in TASKS else yaml.safe_load(file.read_text())
    content = json.loads(json.dumps(content))
    content.pop("pretraining", None)
    data = content["data"]
    for name in ("train", "test"):
        data[name] = str((HERE / data[name]).resolve())
    if form == "molecules":
        for name in ("train", "test"):
            data[name] = str(labelled(Path(data[name])))
    if not options.test:
        del data["test"]
    if options.frames:
        data["train"] += f"@:{options.frames}"
        data["validation"] = min(data["validation"], max(1, options.frames // 5))
    content["network"]["levels"] = [changed(level, form) for level in content["network"]["levels"]]
    content["training"] = {**content.get("training", {}), "seed": seed}
    for rate in ("muon_rate", "adam_rate", "energy_weight"):  # those of the files suit pretrained weights
        if task not in TASKS and "pretraining" in yaml.safe_load(file.read_text()):
            content["training"].pop(rate, None)
    if options.eager:
        content["training"]["compile"] = False
    return {**content, "report": False}


def train(content: dict[str, Any], output: Path, epochs: int) -> float:
    """Train for some epochs, and return the CPU seconds of the fastest: in others, the step may be compiled."""
    content = {**content, "output": str(output), "training": {**content["training"], "epochs": epochs}}
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f"{output.name}.yaml")
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "ase_nbody.cli", "train", str(path), "--threads=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    ends = [event.value for event in events.Scalars("process_cpu_seconds")]
    return min((later - earlier for earlier, later in itertools.pairwise(ends)), default=math.inf)


def cell(task: str, form: str, seed: int, options: argparse.Namespace) -> list[str]:
    """A row of the table: task, form, weights, epochs, errors of energy and forces (MAE and RMSE)."""
    from ase_nbody.files.archive import load_model, read_card

    length = f"{options.minutes:g}min" if options.epochs is None else f"{options.epochs}epochs"
    marks = [length, *(name for name in ("test", "eager") if getattr(options, name))]
    marks += [f"{options.frames}frames"] if options.frames else []
    output = RUNS / "-".join((task, form, str(seed), *marks))
    model, content = output / "model.nbody", configuration(task, form, seed, options)
    if not model.is_file():
        epochs = options.epochs
        if epochs is None:
            probe = output.with_name(f"{output.name}-probe-{time.time_ns()}")
            epochs = max(1, round(60.0 * options.minutes / train(content, probe, PROBE_EPOCHS)))
        train(content, output, epochs)
    card = read_card(model)["card"]
    errors = card["test errors" if options.test else "validation errors"]
    weights = sum(weight.numel() for weight in load_model(model).parameters())
    epochs = yaml.safe_load((output / "config.yaml").read_text())["training"]["epochs"]
    pairs = [f"{errors[name]['mae']:.3g} / {errors[name]['rmse']:.3g}" for name in ("energy", "forces")]
    return [task, form, str(seed), f"{weights:,}", str(epochs), *pairs]


def speed(forms: list[str], channels: int, compiled: bool, structure_name: str, rounds: int) -> None:
    """Print weights and CPU milliseconds for each evaluation of each form, in float32 on one core."""
    from make_nbody import network_config
    from structures import structure

    from ase_nbody import NBodyCalculator, NBodyConfig, NBodyNetwork

    torch.set_num_threads(1)
    atoms = structure(structure_name)
    base = network_config("small", sorted(set(atoms.get_chemical_symbols())))
    runs = {}
    for form in forms:
        sizes = {"channels": channels, "message_channels": channels // 2}
        levels = [changed({**level.model_dump(), **sizes}, form) for level in base.levels]
        content = {**base.model_dump(), "levels": levels}
        torch.manual_seed(0)
        network = NBodyNetwork(NBodyConfig.model_validate(content))
        system = atoms.copy()
        if network.config.is_labelled:
            system.set_array("parts", label_molecules(system))
        system.calc = NBodyCalculator(network, dtype="float32", compile=compiled, threads=1)
        system.get_forces()
        runs[form] = (system, sum(weight.numel() for weight in network.parameters()))
    best = dict.fromkeys(runs, np.inf)
    for number in range(rounds):
        moved = np.random.default_rng(number).normal(scale=1e-4, size=atoms.positions.shape)
        for form, (system, _) in runs.items():
            system.positions = atoms.positions + moved
            began = time.process_time()  # of one thread, and blind to other programs that take its turn
            system.get_forces()
            best[form] = min(best[form], time.process_time() - began)
    for form, (_, weights) in runs.items():
        print(f"| {form} | {weights:,} | {1e3 * best[form]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("train", "speed"))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="of train; default: ethanol")
    parser.add_argument(
        "--forms", nargs="+", choices=list(FORMS), default=[form for form in FORMS if form != "molecules"]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of each training")
    parser.add_argument("--epochs", type=int, help="train all for this number of epochs, not for equal times")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--frames", type=int, help="the first frames alone, to try the command")
    parser.add_argument("--eager", action="store_true", help="do not compile the step of the training")
    parser.add_argument("--test", action="store_true", help="errors on the test frames, which are for the end")
    parser.add_argument("--channels", type=int, default=64, help="speed: channels of both levels")
    parser.add_argument("--compiled", action="store_true", help="speed: compiled, not eager")
    parser.add_argument("--structure", default="3BPA", help="speed: what is evaluated, such as 'water 192'")
    parser.add_argument("--rounds", type=int, default=50, help="speed: evaluations of each form, in turn")
    options = parser.parse_args()
    if unknown := [task for task in options.tasks if task not in TASKS and not (HERE / f"{task}.yaml").is_file()]:
        own = sorted(path.stem for path in HERE.glob("*.yaml") if path.stem != "published")
        parser.error(f"there is no task {', '.join(unknown)}: choose among {', '.join([*TASKS, *own])}")
    if "molecules" in options.forms and options.what == "train" and {*options.tasks} != {"water"}:
        parser.error("the form molecules is for the task water")
    if options.channels < 8 and any(FORMS[form].get("channels") == "falling" for form in options.forms):
        parser.error(f"--channels is {options.channels}, but types that fall with l need at least 8")
    if options.what == "speed":
        speed(options.forms, options.channels, options.compiled, options.structure, options.rounds)
        return
    rows = [["task", "form", "seed", "weights", "epochs", "energy MAE / RMSE", "forces MAE / RMSE"]]
    print("| " + " | ".join(rows[0]) + " |")
    for task in options.tasks or ["ethanol"]:
        for form in options.forms:
            for seed in range(options.seeds):
                row = cell(task, form, seed, options)
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
