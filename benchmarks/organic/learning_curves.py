"""Errors of specialists against the number of their frames: from nothing, from GFN2 pretraining, from a general model.

    python benchmarks/organic/learning_curves.py none gfn2 organic --molecules ethanol --frames 10 50 all
    python benchmarks/organic/learning_curves.py organic --frames 50 --replay general.xyz --general validation.npz

Each training is what ``nbody train FILE`` does by default, with so many frames in all, a tenth of them (at most 50) for
validation. Runs go to ``runs/organic/learning/``, under names that have checksums of the model they start from and of
what they replay; a finished one is not trained again, and a killed one goes on.
``--general`` measures what is left of a general model: its force errors on structures of a file. Prints Markdown.
"""

import argparse
import itertools
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from judging import neutral, predicted, table

from ase_nbody import NBodyCalculator
from ase_nbody.files.archive import read_card

ROOT = Path(__file__).resolve().parents[2]
DATA = {
    "ethanol": ("rmd17_ethanol/train.extxyz", "rmd17_ethanol/test.extxyz"),
    "malonaldehyde": ("rmd17_malonaldehyde/train.extxyz", "rmd17_malonaldehyde/test.extxyz"),
    "aspirin": ("rmd17_aspirin/train.extxyz", "rmd17_aspirin/test.extxyz"),
    "acac": ("acac/train_300K.extxyz", "acac/test_300K.extxyz"),
    "3bpa": ("3bpa/train_300K.extxyz", "3bpa/test_300K.extxyz"),
}
STARTS = {"none": ["network.start_from=none"], "gfn2": ["network.start_from=none", "pretraining={frames: 6000}"]}


def specialist(name: str, frames: str, start: str, options: argparse.Namespace) -> Path:
    """Train it unless its model exists, and return the path of the model."""
    train, test = (options.data / file for file in DATA[name])
    kind = start if start in STARTS else f"{Path(start).stem}-{read_card(start)['checksum'][:8]}"
    if options.replay and start not in STARTS:
        kind += f"-replay-{zlib.crc32(options.replay.read_bytes()):08x}"
    output = ROOT / "runs" / "organic" / "learning" / f"{name}-{frames}-{kind}"
    model = output / "model.nbody"
    if model.is_file():
        return model
    entries = [f"output={output}", f"data.test={test}", "report=false"]
    entries += STARTS.get(start, [f"network.start_from={start}"])
    if options.replay and start not in STARTS:
        entries += [f"data.replay={options.replay.resolve()}"]
    index = ":" if frames == "all" else f":{frames}"
    resume = ["--resume"] if list(output.glob("**/checkpoints/last.ckpt")) else []
    command = [sys.executable, "-m", "ase_nbody.cli", "train", f"{train}@{index}", *entries, "--threads", "1", *resume]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, time) - getattr(before, time) for time in ("ru_utime", "ru_stime"))
    (output / "cpu_minutes.txt").write_text(f"{spent / 60:.1f}{' and more, resumed' if resume else ''}\n")
    return model


def general_error(model: Path | str, path: Path) -> str:
    """Mean absolute error of the forces in meV/Angstrom on the structures of a file whose elements the model knows."""
    calculator = NBodyCalculator(model, dtype="float32")
    known = [found for found in neutral(path) if set(found.atoms.symbols) <= set(calculator.species)]
    results = predicted(calculator, [found.atoms for found in known])
    errors = [np.abs(forces - found.forces).ravel() for found, (_, forces) in zip(known, results, strict=True)]
    return f"{1000 * np.concatenate(errors).mean():.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("starts", nargs="+", help="none, gfn2, or a model: a name or a file")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--molecules", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--frames", nargs="+", default=["10", "50", "all"])
    parser.add_argument("--replay", type=Path, help="structures that trainings from a model replay")
    parser.add_argument("--general", type=Path, help="a .npz file of general structures")
    options = parser.parse_args()
    columns = ["molecule", "frames", "start", "energy, meV", "forces, meV/Angstrom", "CPU-minutes"]
    columns += ["forces of others, meV/Angstrom"] if options.general else []
    rows: list[list[object]] = []
    for name, frames, start in itertools.product(options.molecules, options.frames, options.starts):
        model = specialist(name, frames, start, options)
        errors, minutes = read_card(model)["card"]["test errors"], model.with_name("cpu_minutes.txt")
        shown = [f"{errors[quantity]['mae']:.2f}" for quantity in ("energy", "forces")]
        general = [general_error(model, options.general)] if options.general else []
        spent = minutes.read_text().strip() if minutes.is_file() else ""
        rows.append([name, frames, start, *shown, spent, *general])
        print(f"{table(columns, rows)}\n", flush=True)
    for start in (start for start in options.starts if options.general and start not in STARTS):
        print(f"{start} itself on others: {general_error(start, options.general)} meV/Angstrom")


if __name__ == "__main__":
    main()
