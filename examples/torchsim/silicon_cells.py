"""Many cells of silicon, compressed, sheared or with a vacancy, relaxed side by side with torch-sim.

    python silicon_cells.py [--cells 16] [--model silicon] [--device cpu]

It needs Python 3.12 and torch-sim 0.6. It prints the energy of each relaxed cell per atom above that of perfect
silicon, which is relaxed along with them as cell 0.
"""

import argparse

import ase
import numpy as np
import torch_sim
from ase.build import bulk

from ase_nbody.engines.torchsim import NBodyModel


def cells(count: int) -> list[ase.Atoms]:
    """Cells of 8 and 16 atoms, strained at random; every fourth lacks an atom."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        atoms = bulk("Si", cubic=True).repeat((1 + number % 2, 1, 1))
        if number % 4 == 3:
            del atoms[0]
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.05, seed=number)
        made.append(atoms)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=16, help="number of cells (default: %(default)s)")
    parser.add_argument("--model", default="silicon", help="shipped model or model file (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()

    model = NBodyModel(options.model, device=options.device)
    structures = [bulk("Si"), *cells(options.cells)]
    relaxed = torch_sim.optimize(
        system=structures,
        model=model,
        optimizer=torch_sim.Optimizer.fire,
        init_kwargs={"cell_filter": torch_sim.CellFilter.frechet},
        convergence_fn=torch_sim.generate_force_convergence_fn(force_tol=0.02, include_cell_forces=True),
    )
    perfect = float(relaxed.energy[0]) / 2
    print("cell  atoms  energy above perfect silicon (meV/atom)  largest force (eV/Angstrom)")
    for number, (atoms, state) in enumerate(zip(structures, relaxed.split(), strict=True)):
        above = 1000 * (float(state.energy) / len(atoms) - perfect)
        print(f"{number:4d}  {len(atoms):5d}  {above:39.1f}  {float(state.forces.abs().max()):27.3f}")


if __name__ == "__main__":
    main()
