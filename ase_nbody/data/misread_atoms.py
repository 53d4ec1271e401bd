"""Atoms that ASE's readers take for other elements, or put at places that they take in part: GROMACS, PDB and CIF."""

from collections.abc import Callable

import ase
from ase.data import atomic_numbers
from ase.io.formats import open_with_compression

from ase_nbody.data.labels import DataError
from ase_nbody.text import printable

_HALOGENS_AND_SILICON = ("CL", "BR", "SI")  # no other atoms have names that begin so
_METALS = ("LI", "NA", "MG", "AL", "CA", "MN", "FE", "CO", "NI", "CU", "ZN", "RB", "SR", "AG", "CD", "CS", "BA")
# Residues whose atoms are of the element that their name begins with: CA, HE2, OXT
_RESIDUES = (
    " ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL ACE NME NHE HID HIE HIP HSD HSE "
    " HSP CYX CYM ASH GLH LYN HOH WAT SOL TIP TIP3 A C G U DA DC DG DT DU "
)
_OF_RESIDUES = ("H", "D", "C", "N", "O", "P", "S")
_WHOLE = 0.99  # an atom; smaller occupancies are those of disorder


def correct_gromacs(atoms: ase.Atoms) -> None:
    """Give atoms of a GROMACS file their elements. Of names in capitals, ASE takes the first letter: CL for carbon."""
    _correct_elements(atoms, _told_by_gromacs)


def correct_residues(atoms: ase.Atoms) -> None:
    """Give atoms of a PDB file without a column of elements theirs. ASE takes two letters: CA for calcium."""
    _correct_elements(atoms, _told_by_residue)


def refuse_disorder(atoms: ase.Atoms, path: str) -> None:
    """Refuse a CIF file with a site that several elements, or none, may take: ASE puts a whole atom of one there."""
    sites = atoms.info.get("occupancy") or {}
    for site in sites.values():
        if len(site) > 1 or min(site.values(), default=1.0) < _WHOLE:
            taken = ", ".join(f"{symbol} {share:g}" for symbol, share in site.items())
            raise DataError(
                f"{printable(path)} is of a disordered crystal: a site is taken by {printable(taken)}, and ASE's "
                "reader puts a whole atom there. Make an ordered cell of it, with one element for each site."
            )


def refuse_alternate_places(path: str) -> None:
    """Refuse a PDB file that has an atom twice, for two places that it may take: ASE reads both."""
    first: dict[bytes, bytes] = {}
    with open_with_compression(path, "rb") as lines:
        for line in lines:
            if line.startswith((b"MODEL", b"ENDMDL")):
                first.clear()
            elif line.startswith((b"ATOM  ", b"HETATM")) and (mark := line[16:17].strip()):
                name = line[12:16] + line[17:27]  # of atom, residue and chain, and the residue's number
                if first.setdefault(name, mark) != mark:
                    raise DataError(
                        f"{printable(path)} has alternate places of one atom "
                        f"({printable(name.decode('ascii', 'replace').split())}), and ASE's reader puts an atom at "
                        "each. Keep one of them."
                    )


def _correct_elements(atoms: ase.Atoms, told: Callable[[str, str], str]) -> None:
    """Let atoms be of the element that ``told`` makes of the names of atom and residue, unless it makes nothing."""
    for atom, names in enumerate(zip(atoms.arrays["atomtypes"], atoms.arrays["residuenames"], strict=True)):
        if symbol := told(*names):
            atoms.numbers[atom] = atomic_numbers[symbol]


def _told_by_gromacs(name: str, residue: str) -> str:
    """CL, BR and SI are elements, and metals in residues that are called like them: CA in CA, not in ALA."""
    letters = name[:2].upper()
    is_ion = letters in _METALS and residue.rstrip("0123456789+-").upper() == letters
    return letters.title() if is_ion or letters in _HALOGENS_AND_SILICON else ""


def _told_by_residue(name: str, residue: str) -> str:
    """Atoms of amino acids, nucleotides and water are of the first letter of their names; D is hydrogen."""
    letter = name.lstrip("0123456789'\"*")[:1].upper()
    is_known = f" {residue.strip().upper()} " in _RESIDUES and letter in _OF_RESIDUES
    return letter.replace("D", "H") if is_known else ""
