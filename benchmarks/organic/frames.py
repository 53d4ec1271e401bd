"""Write files of structures as extended XYZ, which ``nbody train`` reads.

    python benchmarks/organic/frames.py OUTPUT.extxyz FILE.npz ...

Neutral structures of more than one atom are written, and with ``--charged`` those with ions, too, of which some are
neutral as a whole. Lone atoms are left out: the labels of a batch of them are wrong in some files. So are clusters
whose molecules are so close that they count as bonded. The subset becomes ``config_type``. A structure whose forces are
larger than those of hot molecules, as those of ``pressed.py``, counts less in the loss, in proportion.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from shards import Arrays, geometries, ionic, read, singles
from teacher import Geometry

PROPERTIES = "species:S:1:pos:R:3:forces:R:3"
BONDED = 1.25  # atoms count as bonded within so many sums of their covalent radii
LARGE_FORCES = 4.0  # eV/Angstrom, root mean square of the components in a structure: 99 % of the others have less


def wanted(data: Arrays, charged: bool) -> NDArray:
    """Which structures have more than one atom, and no charge and no ions unless these are wanted (structures,)."""
    ions = np.array([ionic(str(name)) for name in data["name"]])
    return (data["n_atoms"] > 1) & (charged | ((data["total_charge"] == 0) & ~ions))


def sound(data: Arrays) -> NDArray:
    """Which structures are ``apart`` (structures,)."""
    return np.array([apart(geometry, str(name)) for geometry, name in zip(geometries(data), data["name"], strict=True)])


def apart(geometry: Geometry, name: str) -> bool:
    """Whether the structure falls into at least as many molecules as its name has."""
    expected = len(singles(name))
    if expected == 1:
        return True
    radii = covalent_radii[geometry.numbers]
    bonded = cdist(geometry.positions, geometry.positions) < BONDED * (radii[:, None] + radii)
    return bool(connected_components(bonded, return_labels=False) >= expected)


def write(path: Path, data: Arrays, chosen: NDArray) -> int:
    """Write the chosen structures; the file appears when it is whole. Returns how many there are."""
    symbols, ends = np.array(chemical_symbols), np.cumsum(data["n_atoms"])
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        for index in np.flatnonzero(chosen):
            atoms = slice(ends[index] - data["n_atoms"][index], ends[index])
            charge = f"charge={data['total_charge'][index]} " if data["total_charge"][index] else ""
            size = float(np.sqrt(np.square(data["forces"][atoms]).mean()))
            weight = f"config_weight={LARGE_FORCES / size:.4f} " if size > LARGE_FORCES else ""
            name = str(data["name"][index]).replace("\\", "\\\\")  # SMILES have backslashes
            file.write(
                f"{data['n_atoms'][index]}\nProperties={PROPERTIES} energy={data['energy'][index]:.6f} {charge}{weight}"
                f'config_type={data["subset"][index]} name="{name}" pbc="F F F"\n'
            )
            values = np.concatenate([data["positions"][atoms], data["forces"][atoms]], axis=1).tolist()
            for symbol, row in zip(symbols[data["numbers"][atoms]], values, strict=True):
                file.write(f"{symbol:2} {' '.join(f'{value:.6f}' for value in row)}\n")
    os.replace(partial, path)
    return int(chosen.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--charged", action="store_true", help="write structures with ions, too")
    options = parser.parse_args()
    data = read(options.files)
    chosen = wanted(data, options.charged) & sound(data)
    print(f"{options.output}: {write(options.output, data, chosen)} structures")


if __name__ == "__main__":
    main()
