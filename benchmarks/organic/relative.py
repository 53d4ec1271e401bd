"""Relative energies of conformers and torsion barriers of a dozen molecules: models and GFN2-xTB beside a reference.

    python benchmarks/organic/relative.py MODEL ...
    python benchmarks/organic/relative.py --reference          # makes relative.extxyz, molecule by molecule

All methods give the energies of the same geometries, which are RDKit's, relaxed with GFN2-xTB: up to four conformers of
some molecules, and others with one dihedral angle held at 0 to 180 degrees. The reference is wB97M-D3(BJ)/def2-SVP from
PySCF with density fitting, in the file beside this script. ``--reference`` needs pyscf, pyscf-dispersion and rdkit; it
skips molecules that the file has. Prints Markdown.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixInternals
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS
from dft import calculated, keep
from judging import KCAL_PER_MOL, predicted, table
from numpy.typing import NDArray
from tblite.ase import TBLite

from ase_nbody import NBodyCalculator

FUNCTIONAL, BASIS = "wb97m-d3bj", "def2-svp"
REFERENCE = Path(__file__).with_name("relative.extxyz")
# SMILES, and the atoms of the dihedral angle as SMARTS.
TORSIONS = {
    "OO": "[H]OO[H]",
    "FCCF": "FCCF",
    "CCCC": "CCCC",
    "C=CC=C": "C=CC=C",
    "CSSC": "CSSC",
    "CNC(C)=O": "CNC=O",
    "COC=C": "COC=C",
}
CONFORMERS = ("OCCO", "OCC=O", "NCC(=O)O", "CCCCC", "CC1CCCCC1")
DEGREES = range(0, 181, 30)
EMBEDDED, MOST_CONFORMERS = 10, 4
SAME_EV = 0.005  # conformers closer than this are one
LARGEST_FORCE = 0.03  # eV/Angstrom


def embedded(smiles: str, count: int) -> tuple[list[Atoms], list[int]]:
    """Geometries of RDKit, and the atoms of the dihedral angle if the molecule is turned about one."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    drawn = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(drawn, count, randomSeed=1)
    numbers = [atom.GetAtomicNum() for atom in drawn.GetAtoms()]
    chain = list(drawn.GetSubstructMatch(Chem.MolFromSmarts(TORSIONS[smiles]))) if smiles in TORSIONS else []
    return [Atoms(numbers, one.GetPositions()) for one in drawn.GetConformers()], chain


def relaxed(atoms: Atoms) -> Atoms:
    """The same structure, relaxed with GFN2-xTB."""
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=LARGEST_FORCE, steps=300)
    return atoms


def turned(atoms: Atoms, chain: list[int], degrees: float) -> Atoms:
    """A molecule with its dihedral angle held, all else relaxed."""
    copy = atoms.copy()
    copy.set_dihedral(*chain, degrees, indices=far_side(copy, chain))
    copy.set_constraint(FixInternals(dihedrals_deg=[[degrees, chain]]))
    return relaxed(copy)


def far_side(atoms: Atoms, chain: list[int]) -> list[int]:
    """The atoms on the side of the third atom of a chain."""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    found, waiting = {chain[2]}, [chain[2]]
    while waiting:
        new = {*second[first == waiting.pop()].tolist()} - found - {chain[1]}
        found |= new
        waiting += new
    return sorted(found)


def structures(smiles: str) -> list[Atoms]:
    """The geometries of a molecule."""
    geometries, chain = embedded(smiles, 1 if smiles in TORSIONS else EMBEDDED)
    if chain:
        return [turned(geometries[0], chain, degrees) for degrees in DEGREES]
    found: list[Atoms] = []
    for atoms in sorted(map(relaxed, geometries), key=Atoms.get_potential_energy):
        if not found or atoms.get_potential_energy() - found[-1].get_potential_energy() > SAME_EV:
            found.append(atoms)
    return found[:MOST_CONFORMERS]


def make_reference() -> None:
    """Add the molecules that the file lacks."""
    known = {atoms.info["smiles"] for atoms in ase.io.read(REFERENCE, ":")} if REFERENCE.is_file() else set()
    for smiles in (*TORSIONS, *CONFORMERS):
        if smiles in known:
            continue
        frames = []
        for atoms in structures(smiles):
            frame = calculated(atoms, FUNCTIONAL, BASIS, forces=False)
            if frame is None:
                raise SystemExit(f"the energy of a structure of {smiles} does not converge")
            frame.info["smiles"] = smiles
            frames.append(frame)
        keep(REFERENCE, frames)
        print(f"{smiles}: {len(frames)} structures", flush=True)


def tight_binding(atoms: Atoms) -> float:
    """The energy in eV from GFN2-xTB."""
    copy = Atoms(atoms.numbers, atoms.positions)
    copy.calc = TBLite(method="GFN2-xTB", verbosity=0)
    return float(copy.get_potential_energy())


def rows(smiles: list[str], reference: NDArray, methods: list[NDArray]) -> Iterator[list[object]]:
    """For each molecule: the range of the reference, that of each method, and its mean absolute error in kcal/mol.

    Energies are relative to the structure that is the lowest of the reference. The range of a torsion is its barrier.
    """
    errors: list[list[float]] = [[] for _ in methods]
    for name in dict.fromkeys(smiles):
        which = np.array(smiles) == name
        lowest = int(reference[which].argmin())
        relative = [(energies[which] - energies[which][lowest]) / KCAL_PER_MOL for energies in (reference, *methods)]
        cells = []
        for found, known in zip(relative[1:], errors, strict=True):
            known += np.delete(abs(found - relative[0]), lowest).tolist()
            cells.append(f"{np.ptp(found):.2f} ({np.delete(abs(found - relative[0]), lowest).mean():.2f})")
        kind = "torsion" if name in TORSIONS else "conformers"
        yield [f"`{name}`", kind, int(which.sum()), f"{np.ptp(relative[0]):.2f}", *cells]
    yield ["all", "", len(smiles), "", *(f"({np.mean(known):.2f})" for known in errors)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--reference", action="store_true", help="make the reference first")
    options = parser.parse_args()
    if options.reference:
        make_reference()
    if not REFERENCE.is_file():
        parser.error(f"there is no {REFERENCE.name} yet: make it with --reference")
    frames = ase.io.read(REFERENCE, ":")
    bare = [Atoms(atoms.numbers, atoms.positions) for atoms in frames]
    methods = [np.array([energy for energy, _ in predicted(NBodyCalculator(model), bare)]) for model in options.models]
    methods.append(np.array(list(map(tight_binding, bare))))
    reference = np.array([atoms.get_potential_energy() for atoms in frames])
    print("Ranges of energies, barriers of torsions (mean absolute errors of relative energies), kcal/mol.\n")
    columns = ["molecule", "", "structures", "reference", *(f"`{model}`" for model in options.models), "GFN2-xTB"]
    print(table(columns, rows([atoms.info["smiles"] for atoms in frames], reference, methods)))


if __name__ == "__main__":
    main()
