"""Train MACE and NequIP on the frames of one of our tasks, and print their errors on the same test frames.

    python benchmarks/accuracy/peers.py TASK PEER --environments FOLDER [--epochs N] [--threads N]

TASK is the name of a configuration in this folder; the peer gets the same split of the data. PEER is ``mace`` or
``nequip`` and is installed in an environment of its own in FOLDER. MACE has 64 scalar channels and correlation 3 (Adam,
EMA, second stage), NequIP has 4 layers of l <= 1 with 32 features (Adam, EMA, cosine). These are the sizes that the
benchmark of speed compares with ours. Both learn energies, forces and stresses, and get about the CPU time that our
training takes. Test frames are used only for the last evaluation.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase.data import chemical_symbols

from ase_nbody.data import LabelledStructure
from ase_nbody.training import TrainingConfig, read_sources, read_splits

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "speed"))
from environments import build  # noqa: E402


def write(frames: list[LabelledStructure], path: Path) -> None:
    """Write frames with the keys that MACE expects; NequIP's configuration names them as well."""
    images = []
    for frame in frames:
        there = frame.structure
        atoms = ase.Atoms(there.numbers, there.positions, cell=there.cell, pbc=there.pbc)
        atoms.info |= {"REF_energy": frame.energy, "REF_stress": frame.stress}
        atoms.arrays["REF_forces"] = frame.forces
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")


def mace(python: Path, folder: Path, species: list[str], radius: float, epochs: int) -> list[str]:
    """The command that trains MACE. The last quarter of the epochs is its second stage."""
    options = {
        "name": "model", "train_file": "train.xyz", "valid_file": "validation.xyz", "E0s": "average",
        "model": "MACE", "num_interactions": 2, "num_channels": 64, "max_L": 0, "correlation": 3, "r_max": radius,
        "loss": "stress", "energy_weight": 1, "forces_weight": 100, "stress_weight": 1, "compute_stress": True,
        "batch_size": 2, "valid_batch_size": 10, "lr": 0.01, "ema_decay": 0.99, "max_num_epochs": epochs,
        "start_swa": 3 * epochs // 4, "swa_forces_weight": 100, "scheduler_patience": 15, "eval_interval": 5,
        "default_dtype": "float32", "device": "cpu", "seed": 0, "plot": False,
    }  # fmt: skip
    return [
        str(python.with_name("mace_run_train")),
        *(f"--{name}={value}" for name, value in options.items()),
        *("--ema", "--amsgrad", "--swa"),
    ]


def nequip(python: Path, folder: Path, species: list[str], radius: float, epochs: int) -> list[str]:
    """Write NequIP's configuration to the folder, and return the command that trains it."""
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 2}
    package = "nequip.data.transforms"
    config = {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 0,
            "train_file_path": str(folder / "train.xyz"),
            "val_file_path": str(folder / "validation.xyz"),
            "key_mapping": {"REF_energy": "total_energy", "REF_forces": "forces", "REF_stress": "stress"},
            "include_keys": ["REF_energy", "REF_forces", "REF_stress"],
            "transforms": [
                {
                    "_target_": f"{package}.ChemicalSpeciesToAtomTypeMapper",
                    "model_type_names": species,
                    "chemical_species_to_atom_type_map": {symbol: symbol for symbol in species},
                },
                {"_target_": f"{package}.NeighborListTransform", "r_max": radius},
            ],
            "train_dataloader": {**loader, "shuffle": True},
            "val_dataloader": loader,
            "stats_manager": {"_target_": "nequip.data.CommonDataStatisticsManager", "type_names": species},
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": epochs,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "dirpath": str(folder),
                    "filename": "best",
                    "monitor": "val0_epoch/weighted_sum",
                }
            ],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.99,
            "loss": {
                "_target_": "nequip.train.EnergyForceStressLoss",
                "per_atom_energy": True,
                "coeffs": {"total_energy": 1.0, "forces": 1.0, "stress": 1.0},
            },
            "val_metrics": {
                "_target_": "nequip.train.EnergyForceStressMetrics",
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
                "type_names": species,
                "r_max": radius,
                "num_layers": 4,
                "l_max": 1,
                "num_features": 32,
                "avg_num_neighbors": "${training_data_stats:num_neighbors_mean}",
                "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
                "per_type_energy_scales": "${training_data_stats:forces_rms}",
            },
        },
    }
    (folder / "nequip.yaml").write_text(yaml.safe_dump(config))
    return [str(python.with_name("nequip-train")), "-cp", str(folder), "-cn", "nequip", f"hydra.run.dir={folder}"]


PEERS = {"mace": (mace, 28), "nequip": (nequip, 30)}  # the command and the number of epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", metavar="TASK")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--environments", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    config = TrainingConfig.from_yaml(HERE / f"{options.task}.yaml")
    folder = Path(config.output).parent / "peers" / f"{options.task}_{options.peer}"
    folder.mkdir(parents=True, exist_ok=True)
    training, validation = read_splits(config)
    if not all(np.isfinite(frame.stress).all() for frame in training):
        sys.exit(f"{options.task} has frames without stresses, which both packages are told to learn")
    for name, frames in (("train", training), ("validation", validation), ("test", read_sources(config, "test"))):
        write(list(frames), folder / f"{name}.xyz")
    python = build(options.environments)[options.peer]
    if isinstance(python, str):
        sys.exit(f"{options.peer} {python}")
    species = sorted({chemical_symbols[number] for frame in training for number in frame.structure.numbers})
    radius = max(level.radius for level in config.network.levels)
    train, epochs = PEERS[options.peer]
    command = train(python, folder, species, radius, options.epochs or epochs)
    environment = {"OMP_NUM_THREADS": str(options.threads), "PATH": f"{python.parent}:/usr/bin:/bin"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)  # the environments may have been installed just now
    subprocess.run(command, check=True, cwd=folder, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    evaluation = [str(python), str(HERE / "peer_errors.py"), options.peer, str(folder)]
    said = subprocess.run(evaluation, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    errors = json.loads(said.splitlines()[-1])  # the packages print other lines before it
    print(json.dumps({**errors, "CPU-minutes": round(spent / 60)}, indent=1))


if __name__ == "__main__":
    main()
