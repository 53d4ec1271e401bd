"""An ethanol described by the network in a box of classical water: molecular dynamics with OpenMM.

    python ethanol_in_water.py [--ps 2] [--box 20] [--model ethanol] [--output output]

``ethanol.xml`` beside this script is the residue template with which OpenMM knows the molecule. The network describes
the ethanol, TIP3P the water, and charges and radii of OPLS-AA what acts between the two (mechanical embedding).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import openmm
from ase.build import molecule
from openmm import app, unit
from openmmml import MLPotential

HERE = Path(__file__).parent
# The atoms of ase.build.molecule("CH3CH2OH"), by their names in ethanol.xml.
NAMES = ("C1", "C2", "O", "HO", "H21", "H22", "H11", "H12", "H13")
BONDS = (("C1", "C2"), ("C2", "O"), ("O", "HO"), *(("C2", h) for h in NAMES[4:6]), *(("C1", h) for h in NAMES[6:]))


def ethanol() -> tuple[app.Topology, unit.Quantity]:
    """Topology and positions of one molecule."""
    atoms = molecule("CH3CH2OH")
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    symbols = zip(NAMES, atoms.symbols, strict=True)
    added = {name: topology.addAtom(name, app.Element.getBySymbol(symbol), residue) for name, symbol in symbols}
    for first, second in BONDS:
        topology.addBond(added[first], added[second])
    return topology, atoms.positions * unit.angstrom


def solvated(edge: float) -> tuple[app.Modeller, openmm.System, list[int]]:
    """The molecule in a cubic box of water with an edge in Angstrom, its classical system, and the molecule's atoms."""
    forcefield = app.ForceField(str(HERE / "ethanol.xml"), "tip3p.xml")
    modeller = app.Modeller(*ethanol())
    modeller.addSolvent(forcefield, model="tip3p", boxSize=openmm.Vec3(edge, edge, edge) / 10 * unit.nanometer)
    cutoff = min(9.0, 0.49 * edge) * unit.angstrom
    system = forcefield.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=cutoff, constraints=None, rigidWater=True
    )
    chosen = [atom.index for atom in modeller.topology.atoms() if atom.residue.name == "ETH"]
    return modeller, system, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ethanol", help="shipped model or model file (default: %(default)s)")
    parser.add_argument("--box", type=float, default=20.0, help="edge of the box in Angstrom (default: %(default)s)")
    parser.add_argument("--ps", type=float, default=2.0, help="length of the run in ps (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output", help="folder to fill (default: %(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    modeller, classical, chosen = solvated(options.box)
    potential = MLPotential("nbody", modelPath=options.model)
    system = potential.createMixedSystem(modeller.topology, classical, chosen)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(modeller.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(modeller.positions)
    waters = modeller.topology.getNumResidues() - 1
    print(f"1 ethanol (network {options.model!r}) and {waters} waters (TIP3P) in {options.box:g} Angstrom", flush=True)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    steps = max(round(options.ps * 2000), 20)
    every = max(steps // 20, 1)
    table = options.output / "ethanol_in_water.csv"
    columns = {"step": True, "time": True, "potentialEnergy": True, "temperature": True, "speed": True}
    simulation.reporters += [
        app.StateDataReporter(sys.stdout, every, **columns),
        app.StateDataReporter(str(table), every, **columns),
        app.DCDReporter(str(options.output / "ethanol_in_water.dcd"), every),
    ]
    simulation.step(steps)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    longest = max(np.linalg.norm(positions[NAMES.index(a)] - positions[NAMES.index(b)]) for a, b in BONDS)
    print(f"The longest bond of the ethanol is {longest:.2f} Angstrom; energies and temperatures are in {table}.")


if __name__ == "__main__":
    main()
