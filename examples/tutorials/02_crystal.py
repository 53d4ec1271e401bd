"""# A crystal: elastic constants, phonons, a surface

What a crystal does under small changes: how stiff it is, how it vibrates, what it costs to cut it. The model is the
shipped `silicon`, which learnt from PBE. Put the file of your own model in its place. It takes two minutes on one
core.

`NBODY_TUTORIAL=short` uses smaller cells.
"""

# %%
# ## The relaxed crystal
#
# float64 is the right precision here: second derivatives are differences of forces. `FrechetCellFilter` relaxes the
# cell together with the atoms.
import os

import numpy as np
from ase import Atoms, units
from ase.build import bulk, surface
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.stress import voigt_6_to_full_3x3_strain

from ase_nbody import NBodyCalculator

short = os.environ.get("NBODY_TUTORIAL") == "short"
calc = NBodyCalculator("silicon")
crystal = bulk("Si", "diamond", a=5.43, cubic=True)
crystal.calc = calc
BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=1e-4)
a = crystal.cell.lengths()[0]
print(f"lattice constant {a:.3f} Angstrom (PBE 5.47)")

# %%
# ## Elastic constants
#
# Strain the crystal a little in each of the six ways, relax the atoms inside, and read the stress: C_ij = d sigma_i /
# d eps_j. Without the relaxation, C44 of silicon would be too large by a third.


def stress_under(strain: np.ndarray) -> np.ndarray:
    """The stress in GPa, in Voigt's order, of the crystal under a Voigt strain (6,)."""
    atoms = crystal.copy()
    atoms.calc = calc
    atoms.set_cell(atoms.cell @ voigt_6_to_full_3x3_strain(strain), scale_atoms=True)
    BFGS(atoms, logfile=None).run(fmax=1e-4)
    return atoms.get_stress() / units.GPa


size = 0.005
constants = np.array([(stress_under(size * row) - stress_under(-size * row)) / (2 * size) for row in np.eye(6)])
print(f"C11 {constants[0, 0]:.0f}, C12 {constants[0, 1]:.0f}, C44 {constants[3, 3]:.0f} GPa (PBE 153, 57, 75)")

# %%
# ## Phonons
#
# ASE displaces each atom of the primitive cell in a supercell and reads the forces. The supercell must be wider than
# twice the reach of the interactions, 10 Angstrom in this model, for exact curves; a smaller one is good to a few per
# cent.
primitive = bulk("Si", "diamond", a=a)
n_cells = 2 if short else 5
phonons = Phonons(primitive, calc, supercell=(n_cells,) * 3, delta=0.02, name="crystal_phonons")
phonons.clean()
phonons.run()
phonons.read(acoustic=True)
for name, point in {"Gamma": (0, 0, 0), "X": (0.5, 0, 0.5), "L": (0.5, 0.5, 0.5)}.items():
    terahertz = phonons.band_structure([point])[0] / 0.00413567  # eV -> THz
    print(f"phonons at {name}: {', '.join(f'{value:.1f}' for value in terahertz)} THz")
phonons.clean()

# %%
# The highest mode at Gamma is Raman's line, 15.5 THz in experiment and 15.1 in PBE.
#
# ## A surface
#
# A slab has two surfaces. Its energy minus that of as much crystal, over twice the area, is the surface energy. Ten
# Angstrom of vacuum are enough, because no part of this network reaches farther than its radii.
#
# It matters where the crystal is cut. `surface` cuts at the origin, where atoms lie: on (111) it would leave them with
# one bond of four. The data hold no such atoms, and the calculator would warn that their surroundings are thinner than
# those in its data. A real crystal is cut between its double layers, where each atom keeps three bonds. So we move the
# crystal by a tenth of its diagonal first.


def surface_energy(indices: tuple[int, int, int], layers: int) -> float:
    """The energy in J/m^2 of a relaxed, unreconstructed surface."""
    moved = crystal.copy()
    moved.translate(0.1 * a * np.ones(3))
    slab: Atoms = surface(moved, indices, layers, vacuum=10.0)
    slab.pbc = True
    slab.calc = calc
    BFGS(slab, logfile=None).run(fmax=0.02, steps=200)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    excess = slab.get_potential_energy() - len(slab) * crystal.get_potential_energy() / len(crystal)
    return excess / (2 * area) / (units.J / units.m**2)


for indices in [(1, 1, 1)] if short else [(1, 1, 1), (1, 1, 0), (1, 0, 0)]:
    print(f"surface {indices}: {surface_energy(indices, 3 if short else 6):.2f} J/m^2")

# %%
# The training data hold a few slabs, so the model knows surfaces, but not their reconstructions. If a surface is what
# you are after, put such slabs into your data: an energy per atom is not enough to tell a network what a surface is.
