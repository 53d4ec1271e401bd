"""Train and evaluate every task of the field's tables, and print ours beside what others published.

    python benchmarks/accuracy/run.py [TASK ...] [--threads N]

Each task has its configuration ``TASK.yaml`` here, which ``nbody train`` takes by itself. Runs go to
``runs/accuracy/``; one that is there is not trained again, one that was killed goes on. Test frames are used for the
last evaluation only. The table is printed as Markdown after each task, with what there is so far.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ase_nbody.archive import read_card
from ase_nbody.training.config import TrainingConfig

HERE = Path(__file__).resolve().parent


def train(task: str, threads: int) -> Path:
    """Train the task, unless that was done, and return its model."""
    config = HERE / f"{task}.yaml"
    output = Path(TrainingConfig.from_yaml(config).output)
    model = output / "model.nbody"
    if not model.is_file():
        resume = ["--resume"] if (output / "checkpoints" / "last.ckpt").is_file() else []
        command = [sys.executable, "-m", "ase_nbody.cli", "train", str(config), f"--threads={threads}", *resume]
        subprocess.run(command, check=True)
    return model


def row(task: dict[str, Any], model: Path) -> list[str]:
    """The task's line of the table."""
    content = read_card(model)
    card = content["card"]
    energy, forces = (
        card["test errors"][quantity][task["measure"]] for quantity in (task.get("energy", "energy"), "forces")
    )
    peers = task.get("peers", {})
    best = [min(pair[column] for pair in peers.values()) for column in (0, 1)] if peers else None
    verdict = (
        ""
        if best is None
        else " ".join("<" if ours < least else ">" for ours, least in zip((energy, forces), best, strict=True))
    )
    others = ", ".join(f"{name} {pair[0]:g}/{pair[1]:g}" for name, pair in peers.items())
    return [
        task["title"],
        task["measure"].upper(),
        f"**{energy:.3g} / {forces:.3g}**",
        verdict,
        others,
        str(card.get("training time", "")),
    ]


def main() -> None:
    tasks = yaml.safe_load((HERE / "published.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"default: all, {', '.join(tasks)}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(tasks):
        parser.error(f"no task {', '.join(sorted(unknown))}; there are {', '.join(tasks)}")

    rows = [["task", "measure", "energy / forces", "", "published", "trained in"], ["---"] * 6]
    for name in options.tasks or tasks:
        rows.append(row(tasks[name], train(name, options.threads)))
        print("\n".join("| " + " | ".join(cells) + " |" for cells in rows), flush=True)


if __name__ == "__main__":
    main()
