"""What materials people compute of a crystal, by the models of the crystals, beside PBE.

    python benchmarks/accuracy/properties.py [ELEMENT ...] [--model FILE] [--skip-md]

For each element: lattice constant, bulk modulus, elastic constants, the energies of a vacancy and of two surfaces,
phonons at the boundary of the zone, the bulk modulus of cells relaxed at 25, 50 and 100 GPa, and 5 ps of molecular
dynamics at zero pressure and nine tenths of the melting point. References are PBE: of the authors of the data where
they give them (Zuo et al., J. Phys. Chem. A 124, 731 (2020)), and the slabs among the training data, as they stand
there, by DFT and by the model.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import bulk, surface
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.stress import voigt_6_to_full_3x3_strain

from ase_nbody import NBodyCalculator

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
STRAIN = 0.005
PRESSURES_GPA = (25.0, 50.0, 100.0)
TERAHERTZ = 0.00413567  # eV
BOUNDARY = {
    "bcc": {"H": (0.5, -0.5, 0.5), "N": (0.0, 0.0, 0.5), "P": (0.25, 0.25, 0.25)},
    "diamond": {"X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)},
}
FACES = {"bcc": ((1, 1, 0), (1, 0, 0)), "diamond": ((1, 1, 1), (1, 1, 0))}


@dataclass(frozen=True)
class Crystal:
    """An element: its model, its lattice, its melting point in K, and what PBE gives (Angstrom, GPa)."""

    model: str
    lattice: str
    a: float
    melting_point: float
    data: str
    pbe: str = ""


CRYSTALS = {
    "Si": Crystal("silicon", "diamond", 5.47, 1687.0, "mlearn_Si", "a 5.47, C 153 57 75"),
    "Li": Crystal("lithium", "bcc", 3.44, 454.0, "mlearn_Li", "a 3.44, C 15 13 11"),
    "Mo": Crystal("molybdenum", "bcc", 3.17, 2896.0, "mlearn_Mo", "a 3.17, C 472 158 106"),
    "Nb": Crystal("NbMoTaW", "bcc", 3.32, 2750.0, "NbMoTaW"),
    "Ta": Crystal("NbMoTaW", "bcc", 3.32, 3290.0, "NbMoTaW"),
    "W": Crystal("NbMoTaW", "bcc", 3.18, 3695.0, "NbMoTaW"),
}


def relaxed(atoms: Atoms, calc: Calculator, pressure: float = 0.0) -> Atoms:
    """The structure with its cell relaxed under a pressure in GPa."""
    atoms = atoms.copy()
    atoms.calc = calc
    BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure * units.GPa), logfile=None).run(fmax=1e-3, steps=500)
    return atoms


def elastic_constants(crystal: Atoms) -> np.ndarray:
    """C11, C12, C44 in GPa of a cubic crystal; the atoms inside a strained cell are relaxed."""

    def stress(strain: np.ndarray) -> np.ndarray:
        image = crystal.copy()
        image.calc = crystal.calc
        image.set_cell(crystal.cell @ voigt_6_to_full_3x3_strain(strain), scale_atoms=True)
        BFGS(image, logfile=None).run(fmax=1e-4, steps=200)
        return image.get_stress() / units.GPa

    rows = [(stress(STRAIN * row) - stress(-STRAIN * row)) / (2 * STRAIN) for row in np.eye(6)[[0, 3]]]
    return np.array([rows[0][0], rows[0][1], rows[1][3]])


def bulk_modulus(crystal: Atoms) -> float:
    """-V dp/dV in GPa, by central differences of the stress."""
    pressures = []
    for sign in (1, -1):
        image = crystal.copy()
        image.calc = crystal.calc
        image.set_cell(crystal.cell * (1 + sign * STRAIN), scale_atoms=True)
        pressures.append(-image.get_stress()[:3].mean() / units.GPa)
    return (pressures[1] - pressures[0]) / (6 * STRAIN)


def vacancy_energy(crystal: Atoms) -> float:
    """Energy in eV of a vacancy in 4 x 4 x 4 primitive cells at least, the atoms relaxed in the cell of the crystal."""
    repeated = crystal * ((3,) * 3 if len(crystal) > 2 else (4,) * 3)
    full = len(repeated) * crystal.get_potential_energy() / len(crystal)
    del repeated[0]
    repeated.calc = crystal.calc
    BFGS(repeated, logfile=None).run(fmax=0.01, steps=300)
    return repeated.get_potential_energy() - full * len(repeated) / (len(repeated) + 1)


def surface_energy(crystal: Atoms, face: tuple[int, int, int], layers: int = 8) -> float:
    """Energy in J/m^2 of a relaxed surface without reconstruction. Diamond is cut between its double layers."""
    moved = crystal.copy()
    moved.translate(0.1 * crystal.cell.sum(axis=0))
    slab: Atoms = surface(moved, face, layers, vacuum=10.0)
    slab.pbc = True
    slab.calc = crystal.calc
    BFGS(slab, logfile=None).run(fmax=0.02, steps=300)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    excess = slab.get_potential_energy() - len(slab) * crystal.get_potential_energy() / len(crystal)
    return float(excess / (2 * area) * units.m**2 / units.J)


def phonons(primitive: Atoms, calc: Calculator, lattice: str) -> dict[str, np.ndarray]:
    """Frequencies in THz at the boundary of the zone; an imaginary one is negative."""
    with tempfile.TemporaryDirectory() as folder:
        found = Phonons(primitive, calc, supercell=(4, 4, 4), delta=0.02, name=f"{folder}/phonons")
        found.run()
        found.read(acoustic=True)
        return {name: found.band_structure([point])[0] / TERAHERTZ for name, point in BOUNDARY[lattice].items()}


def dynamics(crystal: Atoms, temperature: float, picoseconds: float = 5.0) -> tuple[float, float]:
    """NPT: linear expansion in the mean of the second half, and largest displacement in distances of neighbours."""
    atoms = crystal * ((2,) * 3 if len(crystal) > 2 else (3,) * 3)
    atoms.calc = crystal.calc
    begin = atoms.get_scaled_positions(wrap=False)
    thermalize_momenta(atoms, 2 * temperature, rng=np.random.default_rng(0))
    Stationary(atoms)
    step = 2.0 * units.fs
    run = IsotropicMTKNPT(atoms, step, temperature_K=temperature, pressure_au=0.0, tdamp=100 * step, pdamp=500 * step)
    volumes: list[float] = []
    run.attach(lambda: volumes.append(atoms.get_volume()), interval=10)
    run.run(round(picoseconds * 1000 / 2.0))
    moved = atoms.get_scaled_positions(wrap=False) - begin
    moved = (moved - moved.mean(axis=0)) @ atoms.cell[:]
    nearest = atoms.get_all_distances(mic=True) + 1e3 * np.eye(len(atoms))
    volume = np.mean(volumes[len(volumes) // 2 :])
    ratio = float((volume / (len(atoms) * crystal.get_volume() / len(crystal))) ** (1 / 3))
    return ratio - 1.0, float(np.linalg.norm(moved, axis=1).max() / np.median(nearest.min(axis=1)))


def slabs(element: str, of: Crystal, calc: Calculator, crystal: Atoms) -> str:
    """Mean surface energy of the slabs in the training data, in J/m^2: DFT / model, each with its own bulk."""
    frames = ase.io.read(DATA / of.data / "train.extxyz", ":")
    own = [atoms for atoms in frames if set(atoms.symbols) == {element}]
    faces = [atoms for atoms in own if "urface" in str(atoms.info.get("config_type"))]
    if not faces:
        return "no slab"
    lowest = min(atoms.get_potential_energy() / len(atoms) for atoms in own)
    pairs = []
    for atoms in faces:
        lengths = atoms.cell.lengths()
        area = atoms.get_volume() / lengths.max()
        reference = atoms.get_potential_energy() - len(atoms) * lowest
        atoms.calc = calc
        found = atoms.get_potential_energy() - len(atoms) * crystal.get_potential_energy() / len(crystal)
        pairs.append(np.array([reference, found]) / (2 * area) * units.m**2 / units.J)
    means, worst = np.mean(pairs, axis=0), max(abs(one - other) for one, other in pairs)
    return f"{means[0]:.2f} / {means[1]:.2f}, largest difference {worst:.2f}"


def show(element: str, options: argparse.Namespace) -> None:
    """Print all of one element."""
    of = CRYSTALS[element]
    calc = NBodyCalculator(options.model or of.model, threads=1)
    print(f"{element} ({of.lattice}), model {options.model or of.model}; PBE: {of.pbe or 'not given'}")
    primitive = relaxed(bulk(element, of.lattice, a=of.a), calc)
    crystal = relaxed(bulk(element, of.lattice, a=of.a, cubic=True), calc)
    print(f"  lattice constant {crystal.cell.lengths()[0]:.3f} Angstrom, bulk modulus {bulk_modulus(crystal):.0f} GPa")
    print("  C11, C12, C44: {:.0f}, {:.0f}, {:.0f} GPa".format(*elastic_constants(crystal)))
    print(f"  vacancy {vacancy_energy(crystal):.2f} eV")
    for face in FACES[of.lattice]:
        print(f"  surface {face}: {surface_energy(crystal, face):.2f} J/m^2")
    print(f"  slabs of the training data: {slabs(element, of, calc, crystal)} J/m^2", flush=True)
    for name, frequencies in phonons(primitive, calc, of.lattice).items():
        print(f"  phonons at {name}: {', '.join(f'{value:.1f}' for value in frequencies)} THz")
    for pressure in PRESSURES_GPA:
        pressed = relaxed(crystal, calc, pressure)
        edge, modulus = pressed.get_volume() ** (1 / 3), bulk_modulus(pressed)
        print(f"  at {pressure:.0f} GPa: cubic root of the volume {edge:.3f} Angstrom, bulk modulus {modulus:.0f} GPa")
    if not options.skip_md:
        fast = NBodyCalculator(options.model or of.model, threads=1, dtype="float32", compile=False)
        hot = crystal.copy()
        hot.calc = fast
        temperature = 0.9 * of.melting_point
        expansion, moved = dynamics(hot, temperature)
        print(f"  5 ps at {temperature:.0f} K: expands by {100 * expansion:.1f} %;", end=" ")
        print(f"no atom moved by more than {moved:.2f} distances of neighbours")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("elements", nargs="*", metavar="ELEMENT", help=f"default: all, {', '.join(CRYSTALS)}")
    parser.add_argument("--model", help="a model file in place of the shipped one")
    parser.add_argument("--skip-md", action="store_true", help="leave molecular dynamics out")
    options = parser.parse_args()
    if unknown := ", ".join(element for element in options.elements if element not in CRYSTALS):
        parser.error(f"there is no reference for {unknown}: choose among {', '.join(CRYSTALS)}")
    for element in options.elements or CRYSTALS:
        show(element, options)


if __name__ == "__main__":
    main()
