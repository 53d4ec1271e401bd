"""# A reaction path: the proton of acetylacetone

In the enol of acetylacetone, a proton sits between two oxygen atoms, nearer to one of them. How high is the barrier
to the other? The nudged elastic band finds the path. The shipped model `acac` has seen this molecule at 300 K only,
so we also ask its committee how sure it is along the path. It takes a minute on one core.

`NBODY_TUTORIAL=short` uses fewer images and steps.
"""

# %%
# ## The two ends
#
# ASE has no enol of acetylacetone, so we place the atoms roughly and relax. The other end is its mirror image, with
# the atoms in the same order: a path connects atoms, not elements.
import os

import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE

from ase_nbody import NBodyCalculator

short = os.environ.get("NBODY_TUTORIAL") == "short"
calc = NBodyCalculator("acac")
positions = np.array(
    [  # the molecule lies in the plane y, z; the mirror swaps y
        [0.00, 1.22, 0.66], [0.00, -1.22, 0.66], [0.00, 0.00, 1.36],  # C of the two C-O, and C between them
        [0.00, 2.52, 1.40], [0.00, -2.52, 1.40],  # C of the methyl groups
        [0.00, 1.27, -0.65], [0.00, -1.27, -0.62],  # O
        [0.00, 0.30, -0.95],  # the proton, nearer to the first O
        [0.00, 0.00, 2.44],  # H of the C between
        [0.00, 3.37, 0.71], [0.89, 2.57, 2.05], [-0.89, 2.57, 2.05],  # H of the methyl groups
        [0.00, -3.37, 0.71], [0.89, -2.57, 2.05], [-0.89, -2.57, 2.05],
    ]
)  # fmt: skip
partner = [1, 0, 2, 4, 3, 6, 5, 7, 8, 12, 13, 14, 9, 10, 11]  # where the mirror takes each atom
first = Atoms("C5O2H8", positions)
first.calc = calc
BFGS(first, logfile=None).run(fmax=0.01, steps=300)
last = Atoms(first.symbols, (first.positions * [1, -1, 1])[partner])
last.calc = calc
BFGS(last, logfile=None).run(fmax=0.01, steps=300)
print(f"the two ends differ by {1000 * abs(last.get_potential_energy() - first.get_potential_energy()):.2f} meV")

# %%
# ## The band
#
# Several images share one calculator, which ASE allows if told so. The climbing image ends at the saddle point.
images = [first, *(first.copy() for _ in range(3 if short else 9)), last]
band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
band.interpolate()
for image in images:
    image.calc = calc
FIRE(band, logfile=None).run(fmax=0.03, steps=20 if short else 300)
energies = np.array([image.get_potential_energy() for image in images])
barrier = energies.max() - energies[0]
print(f"barrier: {barrier:.3f} eV")

# %%
# ## Is it to be trusted?
#
# The members of the committee learnt from the same frames and differ in their random beginnings. Where they disagree,
# the data do not decide. Along this path the spread of the barrier is the least that its error can be.
spread = []
for image in images:
    image.get_potential_energy()
    spread.append(calc.energy_spread)
print("spread of the energy along the path in meV:", np.round(1000 * np.array(spread), 1))

# %%
# Coupled-cluster theory puts this barrier at 0.14 eV. Functionals such as PBE, which the model learnt, share the
# proton too readily and put it far lower. A network cannot be better than its teacher.
