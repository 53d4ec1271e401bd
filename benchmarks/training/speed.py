"""CPU time of a training step, eager and compiled, and of networks for few and for many elements, each in turn.

    python benchmarks/training/speed.py step [--data organic|FILE] [--rooms 2] [--batches 40]
    python benchmarks/training/speed.py elements [--compiled]
    python benchmarks/training/speed.py threads --data FILE --batch-size 5

``step`` trains one network on the same batches twice: eagerly, and as ``training.compile`` does, with ghosts and a few
common sizes (``ase_nbody/training/paddings.py``). A step is everything from the batch to the new weights; ``batch`` is
the time to collate it. ``elements`` compares networks that know H, C and O with those that know 13 elements on the same
structures of H, C and O: a training step, and an evaluation of 250 atoms in many molecules and of one molecule.
``threads`` gives the wall time of an eager step on one and on two threads, in turn; run it on a quiet machine and on
one whose other core is busy.

Other times are those of this process on one core (``time.process_time``): other programs on the machine change them
little, and they change both of a pair alike. Medians over all batches are printed. The data are the neutral structures
of ``shared/data/organic`` (float32).
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from ase_nbody import NBodyCalculator, NBodyNetwork
from ase_nbody.data import Batch, LabelledStructure, collate, prepare, read_labelled
from ase_nbody.hierarchy.ghosts import sizes_of
from ase_nbody.potential import evaluate
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.memory import keep_freed_memory
from ase_nbody.runtime.threads import SERIAL_EDGES, torch_threads
from ase_nbody.structure import Structure
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.initial import build_network
from ase_nbody.training.loaders import make_loader
from ase_nbody.training.loss import Residuals
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.processes import Processes

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SPECIES = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I")


def organic(n: int, numbers: set[int] | None = None) -> list[LabelledStructure]:
    """``n`` neutral structures of more than one atom, drawn at random; ``numbers``: of these elements alone."""
    arrays = dict(np.load(DATA / "organic" / "train.npz"))
    ends = np.cumsum(arrays["n_atoms"])
    found: list[LabelledStructure] = []
    for index in np.random.default_rng(0).permutation(len(ends)):
        atoms = slice(ends[index] - arrays["n_atoms"][index], ends[index])
        elements = arrays["numbers"][atoms]
        if arrays["total_charge"][index] or len(elements) < 2 or (numbers and not set(elements.tolist()) <= numbers):
            continue
        structure = Structure.from_atoms(Atoms(elements, arrays["positions"][atoms]))
        forces = arrays["forces"][atoms].astype(np.float64)
        found.append(LabelledStructure(structure, float(arrays["energy"][index]), forces, np.full((3, 3), np.nan)))
        if len(found) == n:
            break
    return found


def configuration(options: argparse.Namespace) -> TrainingConfig:
    """The network and the training whose steps are measured."""
    sizes = {"radius": options.radius, "channels": options.channels, "message_channels": options.channels // 2}
    levels = [{"parts": "all", **sizes}, {"parts": "heavy", "children": "heavy", "l_out": 0, **sizes}]
    batches = {"batch_size": options.batch_size} if options.batch_size else {"batch_atoms": options.batch_atoms}
    content = {"data": {"train": "-"}, "network": {"levels": levels}, "training": {"epochs": 1, **batches}}
    return TrainingConfig.model_validate(content)


class Stopwatch:
    """CPU seconds of what was measured, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Do the work once."""
        began = time.process_time()
        work()
        self.seconds.setdefault(name, []).append(time.process_time() - began)

    def median(self, name: str) -> float:
        """The median of the seconds of a name."""
        return statistics.median(self.seconds[name])


def step_of(module: NBodyTraining, batch: Batch) -> None:
    """A training step, without the loop around it."""
    residuals = Residuals.of(module.predict(batch), batch)
    value = module.loss(residuals, 0, residuals.counts())
    module.network.zero_grad()
    value.backward()
    for optimiser in module.configured:  # type: ignore[union-attr]
        optimiser.step()  # type: ignore[operator]


def module_of(network: NBodyNetwork, config: TrainingConfig) -> NBodyTraining:
    """The module that trains the network, with its optimisers."""
    module = NBodyTraining(network, config.training, 10_000, with_stress=False)
    module.configured = module.configure_optimizers()[0]  # type: ignore[index, assignment]
    return module


def steps(options: argparse.Namespace) -> None:
    """Print the times of eager and compiled steps."""
    data = organic(options.structures) if options.data == "organic" else read_labelled(options.data)
    config = configuration(options)
    network = build_network(config, data)
    module = module_of(network, config)
    compiled = module.compiled
    assert compiled is not None
    loader, watch = make_loader(data, network.config, config, Processes(), shuffle=True), Stopwatch()
    batches: list[Batch] = []
    iterator: Iterator[Batch] = iter(loader)
    for _ in range(len(loader)):
        watch.measure("batch", lambda: batches.append(next(iterator)))
    if options.batch_size:
        compiled.patience = 1
    compiled.paddings.compilation, compiled.paddings.most = 0.0, options.rooms
    for batch in batches * 4:
        compiled.paddings.add(sizes_of(batch.hierarchy))
    print(f"common sizes: {compiled.paddings.chosen}")
    rooms = [compiled.paddings.room_for(sizes_of(batch.hierarchy)) for batch in batches]
    print(f"{len(batches)} batches, {sum(room is None for room in rooms)} of them evaluated eagerly in both ways")
    chosen = batches[: options.batches]
    before = os.times()
    for batch in chosen:
        step_of(module, batch)
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    print(f"first {len(chosen)} steps, with compilation: {used:.0f} s of CPU time; failure: {compiled.failure}")
    for batch in chosen:
        for name, potential in (("eager", None), ("compiled", compiled)):
            module.compiled = potential
            watch.measure(name, lambda: step_of(module, batch))  # noqa: B023  # called at once
    atoms = np.array([len(batch.positions) for batch in chosen])
    speeds = {name: float(np.median(atoms / np.array(watch.seconds[name]))) for name in ("eager", "compiled")}
    ratios = np.array(watch.seconds["eager"]) / np.array(watch.seconds["compiled"])
    print(f"atoms in a batch {atoms.mean():.0f}, batch {1e3 * watch.median('batch'):.1f} ms")
    for name, speed in speeds.items():
        total = atoms.sum() / (sum(watch.seconds[name]) + len(atoms) * watch.median("batch"))
        print(f"{name:9s} {1e3 * watch.median(name):6.1f} ms a step, {speed:5.0f} atoms/s; with batches {total:5.0f}")
    print(f"ratio: median {np.median(ratios):.2f}, from {ratios.min():.2f} to {ratios.max():.2f}")


def elements(options: argparse.Namespace) -> None:
    """Print the times of networks for 3 and for 13 elements, and the numbers of their weights."""
    data, config, watch = organic(60, {1, 6, 8}), configuration(options), Stopwatch()
    base = build_network(config, data).config
    networks = {}
    for species in (("H", "C", "O"), SPECIES):
        torch.manual_seed(0)
        energies = dict.fromkeys(species, 0.0)
        changed = {"species": species, "isolated_atom_energies": energies, "coverage": None}
        networks[len(species)] = NBodyNetwork(base.model_copy(update=changed)).to(torch.float32)
    samples, batch, molecule = prepare(data, networks[3].config), [], None
    for sample in samples:
        if sum(len(each.positions) for each in batch) + len(sample.positions) <= options.batch_atoms:
            batch.append(sample)
        if molecule is None and len(sample.positions) >= 24:
            molecule = sample
    assert molecule is not None
    batches = {"many molecules": collate(batch, 8), "one molecule": molecule}
    modules = {n: module_of(network, config) for n, network in networks.items()}
    atoms = Atoms(molecule.hierarchy.numbers.numpy(), molecule.positions.numpy())
    calculators = {}
    if options.compiled:
        calculators = {n: NBodyCalculator(net, dtype="float32", compile=True) for n, net in networks.items()}
    for module in modules.values():
        module.compiled = None
    for number in range(options.batches):
        for n, module in modules.items():
            watch.measure(f"training step {n}", lambda: step_of(module, batches["many molecules"]))  # noqa: B023
            for name, one in batches.items():
                given = (one.hierarchy, one.positions, one.cells)
                watch.measure(f"evaluation of {name} {n}", lambda: evaluate(for_eager(networks[n]), *given))  # noqa: B023
        for n, calculator in calculators.items():
            moved = atoms.copy()
            moved.positions[0, 0] += 1e-3 * (number % 10 + 1)
            moved.calc = calculator
            watch.measure(f"compiled evaluation of one molecule {n}", moved.get_forces)
    for name in sorted({name.rpartition(" ")[0] for name in watch.seconds}):
        few, many = (watch.seconds[f"{name} {n}"][1:] for n in networks)
        ratio = statistics.median(many) / statistics.median(few)
        print(f"{name}: {1e3 * statistics.median(few):.2f} ms for 3 elements, {ratio:.2f} times that for 13")
    print("weights:", {n: sum(weight.numel() for weight in network.parameters()) for n, network in networks.items()})


def threads(options: argparse.Namespace) -> None:
    """Print the wall times of eager steps on one thread and on two."""
    data = organic(options.structures) if options.data == "organic" else read_labelled(options.data)
    config = configuration(options)
    module = module_of(build_network(config, data), config)
    module.compiled = None
    loader = make_loader(data, module.network.config, config, Processes(), shuffle=True)
    found: dict[int, list[float]] = {1: [], 2: []}
    edges: list[int] = []
    for batch in itertools.islice(loader, options.batches):
        edges.append(batch.hierarchy.n_edges)
        for number, times in found.items():
            with torch_threads(number):
                began = time.perf_counter()
                step_of(module, batch)
                times.append(1e3 * (time.perf_counter() - began))
    print(f"edges in a batch: median {np.median(edges):.0f}; at most {SERIAL_EDGES} are trained on one thread")
    for number, times in found.items():
        print(f"{number} threads: median {np.median(times):.1f} ms, 90th percentile {np.percentile(times, 90):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("step", "elements", "threads"))
    parser.add_argument("--data", default="organic", help="'organic', or a file")
    parser.add_argument("--structures", type=int, default=1500)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--radius", type=float, default=4.5)
    parser.add_argument("--batch-atoms", type=int, default=250)
    parser.add_argument("--batch-size", type=int, help="structures in a batch, in place of --batch-atoms")
    parser.add_argument("--rooms", type=int, default=2, help="number of common sizes")
    parser.add_argument("--batches", type=int, default=40, help="number of batches, or of rounds")
    parser.add_argument("--compiled", action="store_true", help="elements: native code, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    {"step": steps, "elements": elements, "threads": threads}[options.what](options)


if __name__ == "__main__":
    main()
