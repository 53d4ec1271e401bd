"""Write the structures on which ``emt.nbody`` is trained, labelled with ASE's EMT. The result is deterministic.

    python tests/example_models/emt_data.py runs/emt/train.extxyz

It takes a minute. The structures are pairs of all species at all distances, crystals, slabs with adsorbates, clusters
and molecules, as they occur in ASE's own tests of EMT, and what dynamics and optimisers make of them. Energies are in
eV relative to the bulk metals, as EMT's are; forces are in eV/Angstrom and stresses in eV/Angstrom^3.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc100, fcc110, fcc111, fcc211, make_supercell, molecule
from ase.calculators.emt import EMT, beta, parameters
from ase.cluster import Icosahedron
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import FIRE

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
LIGHT = ("H", "C", "N", "O")
SMALL = ("H2", "N2", "O2", "CO", "NO", "CH", "OH", "NH", "H2O", "CO2", "CH3", "CH4", "NH3", "HCN", "H2O2")
MOLECULES = (*SMALL, "CH3OH", "N2H4", "C2H2", "C2H4", "C2H6", "CH3CH2OH", "C6H6", "butadiene", "cyclobutene")
GUESTS = ("CO", "CO2", "N2", "H2O", "CH4", "H2", "O2")
# Structures with larger forces or stresses would dominate the loss.
LARGEST_FORCE = 25.0  # eV/Angstrom
LARGEST_STRESS = 0.6  # eV/Angstrom^3


def contact(first: str, second: str) -> float:
    """Distance in Angstrom between neighbours in a dense crystal of two species, from EMT's Wigner-Seitz radii."""
    return beta * units.Bohr * (parameters[first][1] + parameters[second][1]) / 2


def dimers() -> Iterator[Atoms]:
    """Frames with all pairs of species far from each other. Each frame has another distance within the pairs."""
    pairs = list(itertools.combinations_with_replacement((*LIGHT, *METALS), 2))
    for stretch in np.arange(0.50, 2.26, 0.07):
        frame = Atoms()
        for number, (first, second) in enumerate(pairs):
            pair = Atoms([first, second], [[0, 0, 0], [stretch * contact(first, second), 0, 0]])
            if is_moderate(pair):
                pair.translate([0, 20.0 * (number % 11), 20.0 * (number // 11)])
                frame += pair
        yield frame


def few_atoms(rng: np.random.Generator) -> Iterator[Atoms]:
    """Single atoms, and groups of three to ten atoms of any species at random places, from gas-like to dense."""
    for symbol in (*LIGHT, *METALS):
        yield Atoms(symbol)
    for _ in range(320):
        species = LIGHT if rng.random() < 0.3 else (*LIGHT, *METALS)
        symbols = rng.choice(species, size=rng.integers(3, 11))
        yield packed(symbols, rng, tightness=rng.uniform(0.5, 1.1))


def packed(symbols: Sequence[str], rng: np.random.Generator, tightness: float) -> Atoms:
    """Atoms at random places, added one by one, near the others but no closer than ``tightness`` times contact."""
    atoms = Atoms(symbols[:1], [[0, 0, 0]])
    radius = 2.0
    while len(atoms) < len(symbols):
        symbol = symbols[len(atoms)]
        place = rng.normal(size=3)
        place *= radius / np.linalg.norm(place)
        place += atoms.positions.mean(axis=0)
        ratios = [np.linalg.norm(place - other.position) / contact(symbol, other.symbol) for other in atoms]
        if min(ratios) >= tightness:
            atoms += Atoms([symbol], [place])
            radius = 1.5
        radius += 0.05
    return atoms


def metals(rng: np.random.Generator) -> Iterator[Atoms]:
    """Crystals of the metals in several lattices, some with a vacancy, all strained, sheared and rattled."""
    for symbol in METALS:
        cubic = bulk(symbol, cubic=True)
        spacing = contact(symbol, symbol)
        yield from (strained(bulk(symbol), rng, scale) for scale in np.linspace(0.88, 1.16, 8))
        yield from (strained(cubic, rng) for _ in range(3))
        yield from (strained(bulk(symbol, "hcp", a=spacing, c=1.63 * spacing), rng) for _ in range(2))
        yield strained(bulk(symbol, "bcc", a=1.13 * spacing, cubic=True), rng)
        yield strained(bulk(symbol, "sc", a=0.95 * spacing), rng)
        vacancy = cubic * (2, 2, 1)
        del vacancy[0]
        yield strained(vacancy, rng)
        yield strained(make_supercell(cubic, [[1, 1, 0], [0, 1, 1], [0, 0, 1]]), rng)


def alloys(rng: np.random.Generator) -> Iterator[Atoms]:
    """Crystals of any two species, strained, sheared and rattled."""
    for first, second in itertools.combinations((*METALS, *LIGHT), 2):
        spacing = contact(first, second)
        alloy = bulk(first, "fcc", a=2**0.5 * spacing, cubic=True)
        alloy.symbols[rng.choice(4, size=rng.integers(1, 4), replace=False)] = second
        yield strained(alloy, rng)
        yield strained(bulk(first + second, "rocksalt", a=2.0 * 0.8 * spacing), rng)
        if {first, second} <= set(METALS):
            yield strained(bulk(first + second, "wurtzite", a=1.2 * spacing, c=1.9 * spacing), rng)


def light_crystals(rng: np.random.Generator) -> Iterator[Atoms]:
    """Crystals of the light elements from dense to wide, strained, sheared and rattled."""
    for symbol in LIGHT:
        spacing = contact(symbol, symbol)
        for lattice, constant, scales in (
            ("fcc", 2**0.5 * spacing, np.linspace(0.8, 1.3, 10)),
            ("sc", spacing, np.linspace(0.7, 1.2, 5)),
            ("diamond", 2.3 * spacing, np.linspace(0.6, 1.1, 5)),
        ):
            yield from (strained(bulk(symbol, lattice, a=scale * constant), rng) for scale in scales)


def strained(atoms: Atoms, rng: np.random.Generator, scale: float | None = None) -> Atoms:
    """The crystal, stretched and sheared by a few per cent, with its atoms moved a little."""
    atoms = atoms.copy()
    strain = np.eye(3) * (rng.uniform(0.94, 1.08) if scale is None else scale) + rng.normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += rng.normal(scale=rng.choice([0.02, 0.08, 0.2]), size=atoms.positions.shape)
    return atoms


def slabs(rng: np.random.Generator) -> Iterator[Atoms]:
    """Surfaces of the metals, bare and with atoms and molecules on them at any height."""
    for symbol in METALS:
        surfaces = [
            fcc111(symbol, (2, 2, 2), vacuum=6.0),
            fcc100(symbol, (2, 2, 2), vacuum=6.0),
            fcc110(symbol, (1, 2, 3), vacuum=6.0),
            fcc211(symbol, (3, 1, 2), vacuum=6.0),
            fcc111(symbol, (2, 2, 1), vacuum=6.0),
            fcc100(symbol, (2, 2, 1), vacuum=6.0),
        ]
        yield from surfaces
        for number, guest in enumerate(2 * (*LIGHT, *METALS, symbol, *GUESTS)):
            slab = surfaces[number % len(surfaces)].copy()
            adsorbate = molecule(guest) if guest in GUESTS else Atoms(guest)
            adsorbate.rotate(rng.uniform(0, 360), rng.normal(size=3))
            place = rng.uniform(size=2) @ slab.cell.array[:2, :2]
            add_adsorbate(slab, adsorbate, rng.choice([0.8, 1.4, 1.9, 2.6, 3.5]), tuple(place))
            yield slab


def adatoms(rng: np.random.Generator) -> Iterator[Atoms]:
    """An atom of any species anywhere on a surface, at about the distance between neighbours."""
    for symbol, surface, layers in itertools.product(METALS, (fcc100, fcc111), (1, 2)):
        slab = surface(symbol, (2, 2, layers), vacuum=6.0)
        for guest in (symbol, symbol, *rng.choice((*METALS, *LIGHT), size=6, replace=False)):
            atoms = slab + Atoms(
                guest, [rng.uniform(size=2) @ slab.cell.array[:2] + [0, 0, slab.positions[:, 2].max()]]
            )
            nearest = rng.uniform(0.8, 1.3) * contact(symbol, guest)
            while atoms.get_distances(-1, range(len(slab)), mic=True).min() < nearest:
                atoms.positions[-1, 2] += 0.05
            yield atoms


def clusters(rng: np.random.Generator) -> Iterator[Atoms]:
    """Icosahedra and disordered drops of the metals."""
    for symbol in METALS:
        yield Icosahedron(symbol, 2)
        mixed = Icosahedron(symbol, 2)
        mixed.symbols[rng.choice(13, size=6, replace=False)] = rng.choice(METALS)
        yield mixed
        yield packed([symbol] * 9, rng, tightness=0.85)
    yield from (Icosahedron(symbol, 3) for symbol in ("Au", "Cu"))


def chains() -> Iterator[Atoms]:
    """Three atoms in a row; the middle one moves from a quarter of the length to the centre."""
    for first, middle, last in (
        ("Au", "Au", "Ag"),
        ("Cu", "Cu", "Ag"),
        ("Pt", "O", "Pt"),
        ("Al", "H", "Al"),
        ("O", "H", "O"),
    ):
        length = 2 * 1.4 * contact(first, last)
        for place in np.linspace(0.25, 0.5, 6):
            yield Atoms([first, middle, last], [[0, 0, 0], [place * length, 0, 0], [length, 0, 0]])


def molecules(rng: np.random.Generator) -> Iterator[Atoms]:
    """The molecules of ASE's tests, and pairs of them."""
    for name in MOLECULES:
        yield molecule(name)
    for _ in range(30):
        pair = molecule(rng.choice(MOLECULES))
        other = molecule(rng.choice(MOLECULES))
        other.rotate(rng.uniform(0, 360), rng.normal(size=3))
        other.translate([0, 0, np.ptp(pair.positions[:, 2]) + rng.uniform(1.2, 3.5)])
        yield pair + other


def visited(atoms: Atoms, rng: np.random.Generator, temperature: float, frames: int) -> Iterator[Atoms]:
    """Structures on the way towards a minimum of EMT's energy, and of dynamics at ``temperature`` in kelvin."""
    atoms = atoms.copy()
    atoms.rattle(0.05, rng=rng)
    atoms.calc = EMT()
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=16)
    yield atoms.copy()
    time_step = (1.0 if set(LIGHT) & set(atoms.symbols) else 4.0) * units.fs
    thermalize_momenta(atoms, 2 * temperature, rng=rng)
    dynamics = Langevin(atoms, time_step, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng)
    for _ in range(frames):
        dynamics.run(15)
        yield atoms.copy()


def is_moderate(atoms: Atoms) -> bool:
    """Whether no force and no stress exceeds the largest one above."""
    atoms.calc = EMT()
    stress = np.abs(atoms.get_stress()).max() if atoms.pbc.all() else 0.0
    return bool(np.linalg.norm(atoms.get_forces(), axis=1).max() <= LARGEST_FORCE and stress <= LARGEST_STRESS)


def structures() -> Iterator[Atoms]:
    """All structures, in a fixed order."""
    rng = np.random.default_rng(0)
    yield from dimers()
    yield from few_atoms(rng)
    yield from chains()
    for kind in (metals, alloys, light_crystals, adatoms):
        yield from kind(rng)
    for kind, temperature, frames in ((slabs, 900.0, 2), (clusters, 900.0, 2), (molecules, 800.0, 3)):
        for atoms in kind(rng):
            yield atoms
            yield from visited(atoms, rng, temperature, frames)
    for symbol, temperature in itertools.product(METALS, (100.0, 300.0, 600.0, 1200.0)):
        yield from visited(bulk(symbol) * (2, 2, 2), rng, temperature, 4)


def labelled(atoms: Atoms) -> Atoms:
    """A copy with EMT's energy and forces and, in a crystal, its stress."""
    atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, calculator=EMT())
    atoms.get_forces()
    if not atoms.pbc.all():
        atoms.calc.results.pop("stress", None)
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="extxyz file to write")
    output = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    frames = [labelled(atoms) for atoms in structures() if len(atoms) and is_moderate(atoms)]
    write(output, frames, columns=["symbols", "positions", "forces"])
    print(f"{len(frames)} structures, {sum(map(len, frames))} atoms: {output}")


if __name__ == "__main__":
    main()
