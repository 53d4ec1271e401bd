"""Train and evaluate every task of the field's tables, and compare our errors with published ones.

    python benchmarks/accuracy/run.py [TASK ...] [--threads N]

Each task has a configuration ``TASK.yaml`` in this folder, which ``nbody train`` accepts as it is. Runs go to
``runs/accuracy/``. A finished run is not trained again, and a killed one continues. Test frames are used only for the
last evaluation. After each task, the rows of the table so far are printed as Markdown.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from ase_nbody.files.archive import load_members, read_card
from ase_nbody.training import TrainingConfig

HERE = Path(__file__).resolve().parent


def train(task: str, seeds: int, threads: int) -> Path:
    """Train the task unless its model exists, and return the path of the model."""
    config = HERE / f"{task}.yaml"
    output = Path(TrainingConfig.from_yaml(config).output)
    model = output / "model.nbody"
    if not model.is_file():
        resume = ["--resume"] if list(output.glob("**/checkpoints/last.ckpt")) else []
        options = [f"--seeds={seeds}", f"--threads={threads}", *resume]
        command = [sys.executable, "-m", "ase_nbody.cli", "train", str(config), *options]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
        (output / "cpu_minutes.txt").write_text(f"{spent / 60:.0f}{' and more, resumed' if resume else ''}\n")
    return model


def row(task: dict[str, Any], model: Path) -> list[str]:
    """The row of a task in the table."""
    card = read_card(model)["card"]
    errors = card["test errors"]
    energy, forces = (errors[quantity][task["measure"]] for quantity in (task.get("energy", "energy"), "forces"))
    networks = load_members(model)
    size = sum(weight.numel() for weight in networks[0].parameters())
    minutes = model.with_name("cpu_minutes.txt")
    peers = task.get("peers", {})
    others = ", ".join(f"{name} {pair[0]:g}/{pair[1]:g}" for name, pair in peers.items())
    return [
        task["title"] + (", pretrained" if "pretrained on" in card else ""),
        task["measure"].upper(),
        f"**{energy:.3g} / {forces:.3g}**",
        verdict((energy, forces), peers.values()),
        others,
        f"{size:,}" if len(networks) == 1 else f"{len(networks)} x {size:,}",
        minutes.read_text().strip() if minutes.is_file() else "",
    ]


def verdict(ours: tuple[float, float], peers: Collection[list[float]]) -> str:
    """Whether our errors of energy and forces are below the smallest that any of the peers published."""
    least = [min(column) for column in zip(*peers, strict=True)]
    return ", ".join(
        "beaten" if found < best else "equal" if found == best else "missed"
        for found, best in zip(ours, least, strict=False)
    )


def main() -> None:
    tasks = yaml.safe_load((HERE / "published.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"default: all, {', '.join(tasks)}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(tasks):
        parser.error(f"no task {', '.join(sorted(unknown))}; there are {', '.join(tasks)}")

    heads = ["task", "", "energy / forces", "best published", "published", "weights", "CPU-minutes"]
    rows = [heads, ["---"] * len(heads)]
    for name in options.tasks or tasks:
        rows.append(row(tasks[name], train(name, tasks[name].get("seeds", 1), options.threads)))
        print("\n".join("| " + " | ".join(cells) + " |" for cells in rows), flush=True)


if __name__ == "__main__":
    main()
