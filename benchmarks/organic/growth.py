"""Molecules made atom by atom: all that are small, and random ones that begin with a chosen bond.

A molecule grows by a heavy atom in place of a hydrogen, by a ring closed between two atoms, by a bond of higher order,
or by an oxygen on sulphur(II) or phosphorus(III). All are neutral closed shells: no atom has an open valence.
"""

from collections.abc import Iterator

import numpy as np
from rdkit import Chem

VALENCE = {"B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Si": 4, "P": 3, "S": 2, "Cl": 1, "Se": 2, "Br": 1, "I": 1}
# How often a random molecule takes an element.
ORGANIC = {"C": 8.0, "N": 2.5, "O": 2.5, "F": 0.6, "S": 1.0, "Cl": 0.6}
ANY = ORGANIC | {"C": 14.0, "B": 1.0, "Si": 1.0, "P": 1.0, "Se": 1.0, "Br": 0.8, "I": 0.8}
MULTIPLE = {("C", "C"), ("C", "N"), ("C", "O"), ("N", "N"), ("N", "O"), ("C", "S"), ("C", "Se"), ("C", "P")}
RING_SIZES = (3, 4, 5, 6, 7)

# What does not exist, or is no closed shell, or is a salt by its nature.
_IMPLAUSIBLE = [
    Chem.MolFromSmarts(pattern)
    for pattern in (
        "[#8][#8][#8]",
        "[#7;!a][#7;!a]([#7;!a])",
        "[#7;!a][#8][#8]",
        "[#8][#7;!a][#8;!$([#8]=*)]",
        "[#8D1]=[#8D1]",
        "[#16,#34]=[#8;D1]~[!#6]",
        "[r3,r4,r5,r6,r7]#*",
        "[r3,r4,r5,r6,r7]=[r3,r4,r5,r6,r7]=*",
        "*=*=*=*",
        "[#7,#8,#16,#34]=[#7,#8]-[F,Cl,Br,I]",
    )
]


def canonical(molecule: Chem.Mol | str) -> str | None:
    """RDKit's canonical SMILES without stereochemistry, or None if the molecule is none."""
    text = molecule if isinstance(molecule, str) else Chem.MolToSmiles(molecule)
    read = Chem.MolFromSmiles(text)
    if read is None:
        return None
    Chem.RemoveStereochemistry(read)
    return Chem.MolToSmiles(read)


def single(symbol: str) -> Chem.RWMol:
    """The hydride of an element."""
    molecule = Chem.RWMol()
    _add_atom(molecule, symbol)
    molecule.UpdatePropertyCache()
    return molecule


def pair(first: str, second: str) -> Chem.RWMol:
    """Two heavy atoms with a single bond, and hydrogens on their other valences."""
    molecule = single(first)
    _bond(molecule, 0, _add_atom(molecule, second), 1)
    return molecule


def extensions(molecule: Chem.Mol, symbols: tuple[str, ...]) -> Iterator[Chem.RWMol]:
    """All molecules of one heavy atom more."""
    for atom in molecule.GetAtoms():
        for symbol in symbols:
            if atom.GetNumExplicitHs():
                larger = Chem.RWMol(molecule)
                _bond(larger, atom.GetIdx(), _add_atom(larger, symbol), 1)
                yield larger


def tightenings(molecule: Chem.Mol) -> Iterator[Chem.RWMol]:
    """All molecules with one more ring, with one bond of higher order, or with one more oxygen on S or P."""
    open_atoms = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetNumExplicitHs()]
    distances = Chem.GetDistanceMatrix(molecule)
    for number, first in enumerate(open_atoms):
        for second in open_atoms[number + 1 :]:
            bond = molecule.GetBondBetweenAtoms(first, second)
            symbols = tuple(sorted(molecule.GetAtomWithIdx(index).GetSymbol() for index in (first, second)))
            order = 1 if bond is None else int(bond.GetBondTypeAsDouble()) + 1
            closes = bond is None and distances[first, second] + 1 in RING_SIZES
            if closes or (bond is not None and order <= 3 and symbols in MULTIPLE):
                tighter = Chem.RWMol(molecule)
                _bond(tighter, first, second, order)
                yield tighter
    for atom in molecule.GetAtoms():
        oxo = sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds())
        if (atom.GetSymbol() == "S" and oxo < 2 and atom.GetDegree() == 2 + oxo) or (
            atom.GetSymbol() == "P" and oxo < 1 and atom.GetDegree() >= 2
        ):
            oxidised = Chem.RWMol(molecule)
            oxygen = _add_atom(oxidised, "O")
            oxidised.GetAtomWithIdx(oxygen).SetNumExplicitHs(0)
            oxidised.AddBond(atom.GetIdx(), oxygen, Chem.BondType.DOUBLE)
            yield oxidised


def all_up_to(heavy: int, symbols: tuple[str, ...]) -> list[str]:
    """The canonical SMILES of all plausible molecules of at most that many heavy atoms, sorted by size."""
    found: dict[str, None] = {}
    level = {_key(start): start for start in map(single, symbols)}
    for size in range(1, heavy + 1):
        waiting = list(level.values())
        while waiting:  # rings and multiple bonds of this size
            for tighter in tightenings(waiting.pop()):
                key = _key(tighter)
                if key not in level and tighter.GetNumAtoms() == size:
                    level[key] = tighter
                    waiting.append(tighter)
        names = {smiles for molecule in level.values() if (smiles := _finished(molecule))}
        found.update(dict.fromkeys(sorted(names)))
        larger = (grown for molecule in level.values() for grown in extensions(molecule, symbols))
        level = {_key(grown): grown for grown in larger}
    return list(found)


def grow(rng: np.random.Generator, start: Chem.Mol, heavy: int, weights: dict[str, float]) -> str | None:
    """A random molecule of about that many heavy atoms, as canonical SMILES, or None if it is not plausible."""
    molecule = Chem.RWMol(start)
    symbols, chances = list(weights), np.array(list(weights.values())) / sum(weights.values())
    while molecule.GetNumAtoms() < heavy:
        choices = list(extensions(molecule, (str(rng.choice(symbols, p=chances)),)))
        if not choices:
            break
        molecule = choices[rng.integers(len(choices))]
    for _ in range(rng.integers(3)):
        choices = list(tightenings(molecule))
        if choices:
            molecule = choices[rng.integers(len(choices))]
    return _finished(molecule)


def _add_atom(molecule: Chem.RWMol, symbol: str) -> int:
    atom = Chem.Atom(symbol)
    atom.SetNoImplicit(True)
    atom.SetNumExplicitHs(VALENCE[symbol])
    return molecule.AddAtom(atom)


def _bond(molecule: Chem.RWMol, first: int, second: int, order: int) -> None:
    """Bond two atoms, or raise their bond to this order; each gives a hydrogen for it."""
    kind = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}[order]
    if order == 1:
        molecule.AddBond(first, second, kind)
    else:
        molecule.GetBondBetweenAtoms(first, second).SetBondType(kind)
    for index in (first, second):
        atom = molecule.GetAtomWithIdx(index)
        atom.SetNumExplicitHs(atom.GetNumExplicitHs() - 1)


def _key(molecule: Chem.Mol) -> str:
    """A name of a molecule with its multiple bonds where they stand, for finding the same one twice."""
    return Chem.MolToSmiles(molecule, kekuleSmiles=True)


def _finished(molecule: Chem.Mol) -> str | None:
    """The canonical SMILES of a molecule that is plausible."""
    smiles = canonical(molecule)
    if smiles is None:
        return None
    read = Chem.MolFromSmiles(smiles)
    return None if any(read.HasSubstructMatch(pattern) for pattern in _IMPLAUSIBLE) else smiles
