"""Train a peer on the frames of one of our tasks, and print its errors on the same test frames.

    python benchmarks/accuracy/peers.py TASK PEER --environments FOLDER [--amount N]

TASK is the name of a configuration in this folder; the peer gets the same split of the data and the same radius. Each
peer is installed in an environment of its own in FOLDER. Test frames are used only for the last evaluation.

PEER is one of ``PEERS``. MACE has 64 scalar channels and correlation 3 (Adam, EMA, second stage), NequIP has 4 layers
of l <= 1 with 32 features (Adam, EMA, cosine). These are the sizes that the benchmark of speed compares with ours. Both
are trained in float32, in batches of 2 frames, or 1 if they have more than 100 atoms. NEP and ACE have the settings
that their functions name. All learn energies, forces and, where there are any, stresses. ``--amount`` is the length of
the training: epochs of MACE and NequIP, steps of NEP, the largest degree of ACE's basis. By default it is what takes
some 30 CPU-minutes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from vesin import ase_neighbor_list

from ase_nbody.data import LabelledStructure
from ase_nbody.training import TrainingConfig, read_sources, read_splits

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "speed"))
from contender import Failure  # noqa: E402
from environments import build  # noqa: E402


@dataclass(frozen=True)
class Task:
    """What a peer is trained on.

    Attributes:
        folder: has ``train.xyz`` and ``validation.xyz``, and gets what the training writes.
        species: chemical symbols.
        radius: cutoff in Angstrom.
        frames: number of training frames.
        atoms: mean number of their atoms.
        pairs: number of pairs within the radius in all of them, each counted from both sides.
        stress: whether the frames have stresses.
    """

    folder: Path
    species: list[str]
    radius: float
    frames: int
    atoms: float
    pairs: int
    stress: bool

    def batch(self, usual: int) -> int:
        """Frames in a batch: ``usual``, or fewer if they have more than 100 atoms, which would leave too few steps."""
        return usual if self.atoms <= 100 else max(1, usual // 4)


def labelled(frames: Sequence[LabelledStructure]) -> list[ase.Atoms]:
    """Frames with the keys that MACE expects; the other packages are told of them."""
    images = []
    for frame in frames:
        there = frame.structure
        atoms = ase.Atoms(there.numbers, there.positions, cell=there.cell, pbc=there.pbc)
        atoms.info["REF_energy"] = frame.energy
        atoms.arrays["REF_forces"] = frame.forces
        if np.isfinite(frame.stress).all():
            atoms.info["REF_stress"] = frame.stress
        images.append(atoms)
    return images


def prepare(config: TrainingConfig, folder: Path, at_most: int | None = None) -> Task:
    """Write the training and validation frames to the folder, ``at_most`` so many of each for a trial."""
    training, validation = (labelled(frames[:at_most]) for frames in map(list, read_splits(config)))
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in (("train", training), ("validation", validation)):
        ase.io.write(folder / f"{name}.xyz", frames, format="extxyz")
    radius = max(level.radius for level in config.network.levels)
    return Task(
        folder=folder,
        species=sorted({chemical_symbols[number] for atoms in training for number in atoms.numbers}),
        radius=radius,
        frames=len(training),
        atoms=float(np.mean([len(atoms) for atoms in training])),
        pairs=sum(len(ase_neighbor_list("ij", atoms, radius)[0]) for atoms in training),
        stress=all("REF_stress" in atoms.info for atoms in training),
    )


def mace(python: Path, task: Task, epochs: int) -> list[str]:
    """The command that trains MACE. The last quarter of the epochs is its second stage."""
    loss = {"loss": "stress", "stress_weight": 1, "compute_stress": True} if task.stress else {"loss": "weighted"}
    options = {
        "name": "model", "train_file": "train.xyz", "valid_file": "validation.xyz", "E0s": "average",
        "model": "MACE", "num_interactions": 2, "num_channels": 64, "max_L": 0, "correlation": 3, "r_max": task.radius,
        **loss, "energy_weight": 1, "forces_weight": 100, "batch_size": task.batch(2), "valid_batch_size": 10,
        "lr": 0.01, "ema_decay": 0.99, "max_num_epochs": epochs, "start_swa": 3 * epochs // 4,
        "swa_forces_weight": 100, "scheduler_patience": 15, "eval_interval": max(1, epochs // 5),
        "default_dtype": "float32", "device": "cpu", "seed": 0, "plot": False,
    }  # fmt: skip
    return [
        str(python.with_name("mace_run_train")),
        *(f"--{name}={value}" for name, value in options.items()),
        *("--ema", "--amsgrad", "--swa"),
    ]


def nequip(python: Path, task: Task, epochs: int) -> list[str]:
    """Write NequIP's configuration to the folder, and return the command that trains it."""
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": task.batch(2)}
    package, parts = "nequip.data.transforms", "EnergyForceStress" if task.stress else "EnergyForce"
    keys = {"REF_energy": "total_energy", "REF_forces": "forces", **({"REF_stress": "stress"} if task.stress else {})}
    config = {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 0,
            "train_file_path": str(task.folder / "train.xyz"),
            "val_file_path": str(task.folder / "validation.xyz"),
            "key_mapping": keys,
            "include_keys": list(keys),
            "transforms": [
                {
                    "_target_": f"{package}.ChemicalSpeciesToAtomTypeMapper",
                    "model_type_names": task.species,
                    "chemical_species_to_atom_type_map": {symbol: symbol for symbol in task.species},
                },
                {"_target_": f"{package}.NeighborListTransform", "r_max": task.radius},
            ],
            "train_dataloader": {**loader, "shuffle": True},
            "val_dataloader": loader,
            "stats_manager": {"_target_": "nequip.data.CommonDataStatisticsManager", "type_names": task.species},
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": epochs,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "dirpath": str(task.folder),
                    "filename": "best",
                    "monitor": "val0_epoch/weighted_sum",
                }
            ],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.99,
            "loss": {
                "_target_": f"nequip.train.{parts}Loss",
                "per_atom_energy": True,
                "coeffs": dict.fromkeys(keys.values(), 1.0),
            },
            "val_metrics": {
                "_target_": f"nequip.train.{parts}Metrics",
                "coeffs": {"per_atom_energy_mae": 1.0, "forces_mae": 1.0},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "lr_scheduler": {
                "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": epochs},
                "interval": "epoch",
                "frequency": 1,
            },
            "model": {
                "_target_": "nequip.model.NequIPGNNModel",
                "seed": 0,
                "model_dtype": "float32",
                "type_names": task.species,
                "r_max": task.radius,
                "num_layers": 4,
                "l_max": 1,
                "num_features": 32,
                "avg_num_neighbors": "${training_data_stats:num_neighbors_mean}",
                "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
                "per_type_energy_scales": "${training_data_stats:forces_rms}",
            },
        },
    }
    (task.folder / "nequip.yaml").write_text(yaml.safe_dump(config))
    (task.folder / "best.ckpt").unlink(missing_ok=True)  # of a training that was killed; the new one would be best-v1
    programme = str(python.with_name("nequip-train"))
    return [programme, "-cp", str(task.folder), "-cn", "nequip", f"hydra.run.dir={task.folder}"]


# Steps between the looks at the validation frames by which neppo chooses its best model.
NEP_LOOK_STEPS = 200
NEP_BATCH = 32


def nep(python: Path, task: Task, steps: int) -> list[str]:
    """Write the run folder of NEP, and return the command that trains it.

    Everything that is not said is neppo's default (neppo 1.0, ``neppo.nep_in``): cutoffs of 8 and 4 Angstrom, n_max and
    basis_size of 6, l_max of 4, 30 neurons, batches of 32 structures (8 of large ones), AdamW from 1e-2 to 1e-4,
    ``lambda_v`` of 0.1.
    """
    folder = task.folder / "run"
    folder.mkdir(exist_ok=True)
    for name, there in (("train", "train"), ("validation", "test")):  # ``test`` is what neppo chooses its best model by
        frames = ase.io.read(task.folder / f"{name}.xyz", ":")
        for atoms in frames:
            names = ("energy", "stress") if task.stress else ("energy",)
            labels = {label: atoms.info.pop(f"REF_{label}") for label in names}
            atoms.calc = SinglePointCalculator(atoms, **labels, forces=atoms.arrays.pop("REF_forces"))
        ase.io.write(folder / f"{there}.xyz", frames, format="extxyz")
    settings = {
        "type": f"{len(task.species)} {' '.join(task.species)}",
        "batch": task.batch(NEP_BATCH),
        "generation": steps,
        "output_interval": min(steps, NEP_LOOK_STEPS),
        "seed": 0,
    }
    (folder / "nep.in").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return [str(python.with_name("neppo")), "train", str(folder), "--device", "cpu"]


# ace-jax wants a typical distance of each pair of elements. It knows one for most elements but not for hydrogen, and
# ``aj fit`` lets nobody say it; so the basis is made here, in double precision, before ``aj fit`` begins.
ACE_FIT = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
from ace_jax.basis.export import save_npz
from ace_jax.basis.model import build_model
from ace_jax.basis.radial_init import BOND_LEN
from ace_jax.cli import main
from ase.data import atomic_numbers, covalent_radii
file, species, order, degree, radius = json.loads(sys.argv[1])
numbers = [atomic_numbers[symbol] for symbol in species]
lengths = [BOND_LEN.get(number, 2 * covalent_radii[number]) for number in numbers]
r0 = [[(a + b) / 2 for b in lengths] for a in lengths]
save_npz(file, build_model(numbers, order, degree, rcut=radius, r0=r0))
main(sys.argv[2:])
"""


def ace(order: int) -> Callable[[Path, Task, int], list[str]]:
    """Linear ACE of a correlation order, fitted by Bayesian least squares.

    Options and the smaller size (order 3, degree 10) are those of ace-jax's quickstart (README of ace-jax 0.4.1). It
    weighs energies, forces and virials by the evidence of the training frames.
    """

    def command(python: Path, task: Task, degree: int) -> list[str]:
        basis = task.folder / "basis.npz"
        files = {"model": basis, "train": task.folder / "train.xyz", "test": task.folder / "validation.xyz"}
        keys = {"energy-key": "REF_energy", "force-key": "REF_forces"}
        keys |= {"stress-key": "REF_stress"} if task.stress else {}
        # ``r0`` belongs to Gaussian processes and is asked for all the same.
        fit = {**files, **keys, "r0": 2.0, "e0": "lsq", "opt": "lbfgs", "out": task.folder / "fit"}
        size = json.dumps([str(basis), task.species, order, degree, task.radius])
        return [str(python), "-c", ACE_FIT, size, "fit", *(f"--{name}={value}" for name, value in fit.items())]

    return command


@dataclass(frozen=True)
class Peer:
    """How a peer is trained.

    Attributes:
        title: its name in tables.
        environment: name of its environment, and of its calculator in ``make_trained.py``.
        command: writes what the training reads, and returns the command that trains.
        amount: what ``command`` gets by default.
    """

    title: str
    environment: str
    command: Callable[[Path, Task, int], list[str]]
    amount: Callable[[Task], int]


def epochs(most: int, pairs: float) -> Callable[[Task], int]:
    """So many epochs that the network sees this number of pairs, but not more than ``most`` and not fewer than 2."""
    return lambda task: min(most, max(2, round(pairs / task.pairs)))


def nep_steps(task: Task) -> int:
    """So many steps that NEP sees 1.6e8 pairs within our radius; its own radius is larger."""
    return round(1.6e8 * task.frames / task.pairs / task.batch(NEP_BATCH))


PEERS = {
    "mace": Peer("MACE", "mace", mace, epochs(28, 9.2e6)),
    "nequip": Peer("NequIP", "nequip", nequip, epochs(30, 9.8e6)),
    "nep": Peer("NEP", "nep", nep, nep_steps),
    "ace-3": Peer("ACE, order 3", "ace", ace(3), lambda task: 10),
    "ace-4": Peer("ACE, order 4", "ace", ace(4), lambda task: 16 if len(task.species) == 1 else 10),
}


def train(peer: Peer, python: Path, task: Task, amount: int | None = None, threads: int = 1) -> float:
    """Train a peer, and return the CPU-minutes that this took.

    Raises:
        Failure: the training ended with an error, which stands in ``train.log`` in the folder.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PATH": f"{python.parent}:/usr/bin:/bin"}
    environment.pop("PYTHONPATH", None)  # our packages are not the peer's
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = task.folder / "train.log"
    command = peer.command(python, task, amount or peer.amount(task))
    with log.open("w") as output:
        done = subprocess.run(command, cwd=task.folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failure(f"the training ended with code {done.returncode}; see {log}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")) / 60


def evaluate(python: Path, size: str, frames: Path, threads: int = 1) -> dict[str, Any]:
    """Errors and number of weights of a model by ``predict.py``, which explains ``size``.

    Raises:
        Failure: the evaluation ended with an error.
    """
    task = json.dumps({"size": size, "frames": str(frames), "dtype": "float32"})
    command = [str(python), str(HERE / "predict.py"), task]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, env=environment, text=True)
    if done.returncode:
        raise Failure(f"the evaluation failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])  # the packages print other lines before it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", metavar="TASK")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--environments", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--amount", type=int, help="epochs, steps or degree")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    config, peer = TrainingConfig.from_yaml(HERE / f"{options.task}.yaml"), PEERS[options.peer]
    task = prepare(config, Path(config.output).parent / "peers" / f"{options.task}_{options.peer}")
    ase.io.write(task.folder / "test.xyz", labelled(list(read_sources(config, "test"))), format="extxyz")
    python = build(options.environments, [peer.environment])[peer.environment]
    try:
        if isinstance(python, str):
            raise Failure(python)
        minutes = train(peer, python, task, options.amount, options.threads)
        found = evaluate(python, f"{peer.environment} {task.folder}", task.folder / "test.xyz", options.threads)
    except Failure as error:
        sys.exit(f"{options.peer}: {error}")
    print(json.dumps({**found, "CPU-minutes": round(minutes)}, indent=1))


if __name__ == "__main__":
    main()
