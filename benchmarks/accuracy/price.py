"""What accuracy costs: errors on test frames against time per step, ours and others', as a table and a picture.

    python benchmarks/accuracy/price.py [TASK ...] [--train] [--rounds N] [--environments FOLDER] [--model NAME=PATH]

For each task (silicon, molybdenum, water) the contenders are our model, MACE, NequIP, NEP and ACE trained on the same
frames by ``peers.py``, and SNAP and quadratic SNAP with the parameters that come with LAMMPS. ``--train`` trains what
is not trained yet. The errors of all are taken on the same test frames (``predict.py``). Then steps of molecular
dynamics at 300 K are timed on one core, on which everything runs; all contenders take turns, round by round, each in a
process of its own. The table and the picture have medians over the rounds.

``price.json`` in the folder keeps every result, so a run that was killed goes on; a model that is not the one that was
measured is measured anew. A contender that cannot be installed, trained or run is left out, and the reason is printed.
``--quick`` tries everything with few frames, epochs and steps; its figures mean nothing.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import matplotlib

matplotlib.use("Agg")  # pictures go to files, so no screen is needed
import peers
import predict
import run
import snap
from ase.data import chemical_symbols
from matplotlib import pyplot
from matplotlib.ticker import LogLocator, NullFormatter
from peers import PEERS, Peer

from ase_nbody.files.archive import find_model, load_members
from ase_nbody.training import TrainingConfig, read_sources

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE.parent / "speed"))
from contender import Contender, Failure  # noqa: E402
from environments import build  # noqa: E402

STEPS_PER_ROUND = 20  # as benchmarks/speed has it: fixed, because lists of neighbours are not made at every step
PATIENCE_S = 3600.0  # that a contender may take to compile
MEMORY_GB = 10.0
QUICK = {"frames": 6, "steps": 2, "amounts": {"mace": 2, "nequip": 2, "nep": 20, "ace": 6}}
# Colours of Okabe and Ito, which colour-blind people tell apart, by the first word of a contender's name.
COLOURS = {"MACE": "#0072B2", "NequIP": "#009E73", "NEP": "#CC79A7", "ACE": "#56B4E9"}
OUR_COLOUR, SNAP_COLOUR = "#D55E00", "#E69F00"

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """Data and the system that is timed.

    Attributes:
        structure: name of the system, for ``structures.py``.
        element: whose SNAP there is.
        shipped: whether we ship a model, under the name of the task.
    """

    structure: str
    element: str | None = None
    shipped: bool = True

    @property
    def atoms(self) -> int:
        """Number of atoms of the system that is timed."""
        return int(self.structure.split()[1])


TASKS = {
    "silicon": Task("silicon 216", "Si"),
    "molybdenum": Task("molybdenum 250", "Mo"),
    "water": Task("water 192", shipped=False),
}


@dataclass(frozen=True)
class Contestant:
    """What takes part.

    Attributes:
        errors: evaluates the test frames; see ``predict.errors``.
        start: starts what takes steps on request: a ``Contender``, or LAMMPS.
        origin: a file that is another one if the model is another one.
        minutes: CPU-minutes of the training, where they are known.
    """

    errors: Callable[[], dict[str, Any]]
    start: Callable[[], Contender | snap.Snap]
    origin: Path
    minutes: float | None = None


class Study:
    """One task: its folder, its contestants and their results.

    Args:
        name: a key of ``TASKS``.
        options: of the command.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.task, self.options = name, TASKS[name], options
        self.folder = options.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = TrainingConfig.from_yaml(HERE / f"{name}.yaml")
        self.test = self.folder / "test.xyz"
        frames = list(read_sources(self.config, "test"))[: 2 if options.quick else None]
        ase.io.write(self.test, peers.labelled(frames), format="extxyz")

    def contestants(self) -> Iterator[tuple[str, Callable[[], Contestant]]]:
        """Names, and functions that make the contestants; they raise ``Failure`` for those that cannot take part."""
        yield "ours", self.ours
        for name, path in self.options.model:
            species = {chemical_symbols[number] for atoms in ase.io.read(self.test, ":") for number in atoms.numbers}
            if species <= set(load_members(path)[0].config.species):
                yield name, partial(self.by_ours, path)
        for name, peer in PEERS.items():
            yield peer.title, partial(self.peer, name, peer)
        for name, potential in snap.files(self.task.element).items() if self.task.element else ():
            yield name, partial(self.snap, potential)

    def ours(self) -> Contestant:
        """The shipped model, or the one that ``TASK.yaml`` gives."""
        if self.task.shipped:
            return self.by_ours(self.name)
        model = self.folder / "ours" / "model.nbody" if self.options.quick else Path(self.config.output, "model.nbody")
        if not model.is_file():
            self.must_train()
            try:
                self.train_quickly(model.parent) if self.options.quick else run.train(self.name, seeds=1, threads=1)
            except subprocess.CalledProcessError as error:
                raise Failure(f"the training ended with code {error.returncode}") from error
        minutes = model.with_name("cpu_minutes.txt")
        return self.by_ours(str(model), float(minutes.read_text().split()[0]) if minutes.is_file() else None)

    def by_ours(self, model: str, minutes: float | None = None) -> Contestant:
        """A model of ours, by its path or its name if it is shipped."""
        return self.by_calculator(Path(sys.executable), f"nbody {model}", find_model(model), minutes)

    def train_quickly(self, folder: Path) -> None:
        """Train our network for one epoch on few frames."""
        train, test = (getattr(self.config.data, name)[0].path for name in ("train", "test"))
        few = [f"data.train={train}@:{QUICK['frames']}", "data.validation=2", f"data.test={test}@:1"]
        command = ["train", str(HERE / f"{self.name}.yaml"), *few, "training.epochs=1", f"output={folder}"]
        subprocess.run([sys.executable, "-m", "ase_nbody.cli", *command, "--threads=1"], check=True)

    def must_train(self) -> None:
        """Refuse to train without ``--train``."""
        if not self.options.train:
            raise Failure("it is not trained; --train trains it")

    def peer(self, name: str, peer: Peer) -> Contestant:
        """A peer, trained on our split."""
        folder = self.folder / name
        done = folder / "trained.json"
        if not done.is_file():
            self.must_train()
        python = build(self.options.environments, [peer.environment])[peer.environment]
        if isinstance(python, str):
            raise Failure(python)
        if not done.is_file():
            print(f"{self.name}: training {peer.title}", flush=True)
            quick = self.options.quick
            task = peers.prepare(self.config, folder, QUICK["frames"] if quick else None)
            amount = QUICK["amounts"][peer.environment] if quick else peer.amount(task)
            done.write_text(json.dumps({"CPU-minutes": peers.train(peer, python, task, amount), "amount": amount}))
        minutes = json.loads(done.read_text())["CPU-minutes"]
        return self.by_calculator(python, f"{peer.environment} {folder}", done, minutes)

    def by_calculator(self, python: Path, size: str, origin: Path, minutes: float | None = None) -> Contestant:
        """A contestant with a calculator of ASE, which is compiled where its package can."""
        task = {"module": "make_trained", "size": size, "way": "compiled", "dtype": "float32", "device": "cpu"}
        task |= {"structure": self.task.structure, "threads": 1, "memory": MEMORY_GB, "folder": str(self.folder)}
        log = self.folder / "logs" / f"{Path(size).stem}.log"

        def start() -> Contender:
            contender = Contender(python, task, log)
            try:
                contender.answer(PATIENCE_S)
            except Failure:
                contender.close()
                raise
            return contender

        return Contestant(partial(peers.evaluate, python, size, self.test), start, origin, minutes)

    def snap(self, potential: Path) -> Contestant:
        """SNAP, in LAMMPS."""

        def errors() -> dict[str, Any]:
            frames = ase.io.read(self.test, ":")
            return {**predict.errors(frames, *snap.predict(frames, potential)), "weights": snap.weights(potential)}

        start = partial(snap.Snap, self.task.structure, potential)
        return Contestant(errors, start, potential.with_suffix(".snapcoeff"))


def judge(study: Study, results: Results, keep: Callable[[], None]) -> dict[str, Contestant]:
    """Train and evaluate what is not evaluated yet. Return those that take part, and note why others do not."""
    takes_part = {}
    for name, make in study.contestants():
        found = results.setdefault(name, {})
        found.pop("note", None)
        try:
            takes_part[name] = contestant = make()
            origin = hashlib.sha256(contestant.origin.read_bytes()).hexdigest()
            if found.get("origin", origin) != origin:
                found.clear()  # of another model
            found["origin"] = origin
            found["CPU-minutes"] = contestant.minutes
            if "forces" not in found:
                print(f"{study.name}: errors of {name}", flush=True)
                found |= contestant.errors()
        except Failure as error:
            found["note"] = str(error)
            print(f"{study.name}: {name} is left out: {error}", flush=True)
        keep()
    return takes_part


def time_in_turn(study: Study, contestants: dict[str, Contestant], results: Results, keep: Callable[[], None]) -> None:
    """Time what has fewer samples than there are rounds, in turn, and keep each sample at once."""
    running: dict[str, Contender | snap.Snap] = {}

    def leave(name: str, error: Failure) -> None:
        results[name]["note"] = f"it was not timed: {error}"
        print(f"{study.name}: {name}: {results[name]['note']}", flush=True)
        keep()

    rounds, steps = study.options.rounds, QUICK["steps"] if study.options.quick else STEPS_PER_ROUND
    for name, contestant in contestants.items():
        if len(results[name].setdefault("samples", [])) < rounds:
            print(f"{study.name}: compiling {name}", flush=True)
            try:
                running[name] = contestant.start()
            except Failure as error:
                leave(name, error)
    for number in range(1, rounds + 1):
        for name, one in list(running.items()):
            if len(results[name]["samples"]) >= number:
                continue
            try:
                seconds = one.steps(steps, PATIENCE_S)["seconds"]
            except Failure as error:
                running.pop(name).close()
                leave(name, error)
                continue
            results[name]["samples"].append(1e6 * seconds / study.task.atoms)
            print(f"{study.name}, round {number}: {name} {results[name]['samples'][-1]:.1f} µs", flush=True)
            keep()
    for one in running.values():
        one.close()


def cost(found: dict[str, Any]) -> float | None:
    """Microseconds per atom and step, the median over the rounds."""
    return statistics.median(found["samples"]) if found.get("samples") else None


def table(results: dict[str, Results]) -> str:
    """The results in Markdown, the cheapest first."""
    heads = ["task", "", "RMSE of energy, meV/atom", "of forces, meV/Angstrom", "µs per atom and step"]
    rows = [[*heads, "rounds", "weights", "CPU-minutes of training"]]
    rows.append(["---"] * len(rows[0]))
    for task, contestants in results.items():
        for name, found in sorted(contestants.items(), key=lambda item: cost(item[1]) or float("inf")):
            errors = [f"{found[label]['rmse']:.3g}" if label in found else "" for label in ("energy", "forces")]
            if not any(errors) and cost(found) is None:
                continue
            minutes = "" if found.get("CPU-minutes") is None else f"{found['CPU-minutes']:.0f}"
            time = "" if cost(found) is None else f"{cost(found):.3g}"
            weights = f"{found['weights']:,}" if "weights" in found else ""
            rows.append([task, name, *errors, time, str(len(found.get("samples", []))), weights, minutes])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def colour(name: str) -> str:
    """The colour of a contender: one for each family, and one for all of ours."""
    return SNAP_COLOUR if "SNAP" in name else COLOURS.get(name.partition(",")[0], OUR_COLOUR)


def draw(results: dict[str, Results], path: Path) -> None:
    """The picture: a column for each task, forces above and energies below, both axes logarithmic."""
    figure, axes = pyplot.subplots(2, len(results), figsize=(5 * len(results), 8), squeeze=False, layout="constrained")
    for column, (task, contestants) in zip(axes.T, results.items(), strict=True):
        for axis, label in zip(column, ("forces", "energy"), strict=True):
            for name, found in contestants.items():
                if cost(found) is None:
                    continue
                if label not in found:  # a line of speed alone
                    axis.axvline(cost(found), color=colour(name), linestyle=":")
                    axis.annotate(name, (cost(found), 0.02), xycoords=axis.get_xaxis_transform(), rotation=90)
                    continue
                point = cost(found), found[label]["rmse"]
                axis.plot(*point, "o", color=colour(name), markersize=8)
                axis.annotate(name, point, (7, 4), textcoords="offset points", color=colour(name), fontsize=9)
            axis.set(xscale="log", yscale="log", ylabel=f"RMSE of {label} ({predict.UNITS[label]})")
            axis.margins(0.25)
            for side in (axis.xaxis, axis.yaxis):  # within a decade there would be a single number, or none
                side.set_major_locator(LogLocator(subs=(1, 2, 5)))
                side.set_major_formatter("{x:g}")
                side.set_minor_formatter(NullFormatter())
            axis.grid(which="both", alpha=0.2)
        column[0].set_title(f"{task}, {TASKS[task].atoms} atoms")
        column[1].set_xlabel("µs per atom and step, one core")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def named_model(text: str) -> tuple[str, str]:
    """Name and path of ``NAME=PATH``."""
    name, _, path = text.partition("=")
    if not (name and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, str(Path(path).resolve()) if Path(path).is_file() else path  # or the name of a shipped model


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"default: all, {', '.join(TASKS)}")
    parser.add_argument("--train", action="store_true", help="train what is not trained yet")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of timing that there are to be")
    parser.add_argument("--environments", type=Path, help="default: environments in the folder")
    model_help = "a further model of ours, for the tasks whose elements it knows; may be repeated"
    parser.add_argument("--model", action="append", default=[], type=named_model, metavar="NAME=PATH", help=model_help)
    parser.add_argument("--quick", action="store_true", help="a trial with few frames, epochs and steps")
    parser.add_argument("--folder", type=Path, help="default: runs/price, or runs/price-quick")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"no task {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    options.folder = (options.folder or ROOT / "runs" / ("price-quick" if options.quick else "price")).resolve()
    options.environments = (options.environments or options.folder / "environments").resolve()
    return options


def main() -> None:
    options = parse()
    # One core for this process and all that it starts: packages with threads of their own would take more.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "price.json"
    results: dict[str, Results] = json.loads(path.read_text()) if path.is_file() else {}

    def keep() -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(results, indent=1))
        unfinished.replace(path)

    for name in options.tasks or TASKS:
        study = Study(name, options)
        of_task = results.setdefault(name, {})
        time_in_turn(study, judge(study, of_task, keep), of_task, keep)
        draw(results, options.folder / "price.png")
        print(table(results), flush=True)
    print(f"Wrote {options.folder / 'price.png'} and {path}")


if __name__ == "__main__":
    main()
