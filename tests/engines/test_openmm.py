"""OpenMM-ML's potential ``"nbody"`` agrees with the calculator, alone and beside a classical force field."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.build
import numpy as np
import pytest
from ase import units

from ase_nbody import NBodyCalculator, NBodyNetwork
from ase_nbody.files.archive import shipped_models

REASON = 'needs OpenMM-ML: pip install ".[openmm]"'
openmm = pytest.importorskip("openmm", reason=REASON)
openmmml = pytest.importorskip("openmmml", reason=REASON)
app = pytest.importorskip("openmm.app", reason=REASON)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "openmm" / "ethanol_in_water.py"
KJ_PER_MOL = units.kJ / units.mol  # in eV
TOLERANCES = {"Reference": 1e-9, "CPU": 1e-5}  # relative; the CPU platform adds forces in single precision


def topology_of(atoms: ase.Atoms) -> Any:
    """A topology with a residue for each label in ``atoms.arrays["parts"]``."""
    topology = app.Topology()
    chain = topology.addChain()
    labels = atoms.arrays.get("parts", np.zeros(len(atoms), dtype=int))
    residues = {label: topology.addResidue(f"R{label}", chain) for label in np.unique(labels)}
    for number, (symbol, label) in enumerate(zip(atoms.symbols, labels, strict=True)):
        topology.addAtom(f"{symbol}{number}", app.Element.getBySymbol(symbol), residues[label])
    if atoms.pbc.any():
        topology.setPeriodicBoxVectors(atoms.cell.array * openmm.unit.angstrom)
    return topology


def context_of(system: Any, positions: Any, platform: str = "Reference", femtoseconds: float = 0.5) -> Any:
    """A context with positions in Angstrom."""
    integrator = openmm.VerletIntegrator(femtoseconds * openmm.unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions * openmm.unit.angstrom)
    return context


def evaluated(context: Any, groups: int = -1) -> tuple[float, np.ndarray]:
    """Energy in eV and forces in eV/Angstrom."""
    state = context.getState(energy=True, forces=True, groups=groups)
    unit = openmm.unit.kilojoule_per_mole
    energy = state.getPotentialEnergy().value_in_unit(unit)
    forces = state.getForces(asNumpy=True).value_in_unit(unit / openmm.unit.angstrom)
    return energy * KJ_PER_MOL, np.array(forces) * KJ_PER_MOL


@pytest.fixture
def potential() -> Callable[..., Any]:
    return lambda network: openmmml.MLPotential("nbody", modelPath=network)


@pytest.mark.parametrize("platform", TOLERANCES)
@pytest.mark.parametrize("name", ["molecule", "liquid"])
@pytest.mark.parametrize("kind", ["one", "committee", "labelled"])
def test_agrees_with_the_calculator(
    make_network: Callable[..., NBodyNetwork],
    labelled_network: NBodyNetwork,
    systems: dict[str, Callable],
    liquid: ase.Atoms,
    potential: Callable[..., Any],
    platform: str,
    name: str,
    kind: str,
) -> None:
    model = {"one": make_network(), "committee": [make_network(1), make_network(2)], "labelled": labelled_network}[kind]
    atoms = liquid if name == "liquid" else systems[name]()
    if name == "molecule":
        atoms.set_array("parts", np.zeros(len(atoms), dtype=int))
    atoms.calc = NBodyCalculator(model)
    system = potential(model).createSystem(topology_of(atoms), removeCMMotion=False)
    assert system.usesPeriodicBoundaryConditions() == bool(atoms.pbc.any())
    energy, forces = evaluated(context_of(system, atoms.positions, platform))
    tolerance = TOLERANCES[platform]
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=tolerance)
    assert np.abs(forces - atoms.get_forces()).max() < tolerance * np.abs(atoms.get_forces()).max()


def test_options_reach_the_evaluator(
    network: NBodyNetwork, systems: dict[str, Callable], potential: Callable[..., Any]
) -> None:
    atoms = systems["molecule"]()
    system = potential(network).createSystem(topology_of(atoms), precision="single", skin=0.1, threads=1)
    energy, forces = evaluated(context_of(system, atoms.positions))
    atoms.calc = NBodyCalculator(network)
    assert 0 < np.abs(forces - atoms.get_forces()).max() < 1e-4 * np.abs(atoms.get_forces()).max()
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)


def test_a_system_can_be_kept(network: NBodyNetwork, systems: dict[str, Callable], potential: Callable) -> None:
    atoms = systems["molecule"]()
    system = potential(network).createSystem(topology_of(atoms))
    kept = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    first, second = (evaluated(context_of(one, atoms.positions)) for one in (system, kept))
    assert first[0] == second[0]


def test_charges(
    make_network: Callable[..., NBodyNetwork], systems: dict[str, Callable], potential: Callable[..., Any]
) -> None:
    topology = topology_of(systems["molecule"]())
    potential(make_network(outputs=["charges"])).createSystem(topology, charge=-1)
    with pytest.raises(ValueError, match="charge=-1 is given, but this model does not look at the total charge"):
        potential(make_network()).createSystem(topology, charge=-1)
    for charge in (None, "-1", np.nan, True):
        with pytest.raises(ValueError, match=r"^charge is .*, but must be a number in e; leave it out"):
            potential(make_network()).createSystem(topology, charge=charge)


def test_multiplicities(
    make_network: Callable[..., NBodyNetwork], systems: dict[str, Callable], potential: Callable[..., Any]
) -> None:
    atoms = systems["molecule"]()
    triplets, topology = potential(make_network(multiplicities=(3,))), topology_of(atoms)
    system = triplets.createSystem(topology, multiplicity=np.int64(3))
    assert np.isfinite(evaluated(context_of(system, atoms.positions))[0])
    with pytest.raises(ValueError, match="its multiplicity is 1"):
        triplets.createSystem(topology)
    with pytest.raises(ValueError, match=r"multiplicity is 2\.5, but must be an integer"):
        triplets.createSystem(topology, multiplicity=2.5)


def test_faults_are_named(network: NBodyNetwork, systems: dict[str, Callable], potential: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="no model is given"):
        openmmml.MLPotential("nbody")
    with pytest.raises(FileNotFoundError, match="shipped models are"):
        potential("no such model")
    with pytest.raises(ValueError, match="does not know model_path"):
        openmmml.MLPotential("nbody", modelPath=network, model_path="ethanol")
    atoms = systems["molecule"]()
    topology = topology_of(atoms)
    with pytest.raises(ValueError, match=r"does not know chrage .*it knows precision, device, charge"):
        potential(network).createSystem(topology, chrage=1)
    with pytest.raises(ValueError, match="precision is 'mixed', but must be 'single' or 'double'"):
        potential(network).createSystem(topology, precision="mixed")
    with pytest.raises(ValueError, match="device 'cuda:99' is not available"):
        potential(network).createSystem(topology, device="cuda:99")
    topology.addAtom("M\x1b[31m", None, next(topology.residues()))
    with pytest.raises(ValueError, match=r"atom 6 \(M\\x1b\[31m of residue R0 1\) has no element"):
        potential(network).createSystem(topology)
    with pytest.raises(ValueError, match=r"there are no atoms for the model: .* none of them are chosen"):
        potential(network).createMixedSystem(topology_of(atoms), openmm.System(), [])
    with pytest.raises(ValueError, match=r"atom 0 .* is F, and the model knows H, C, O"):
        potential(network).createSystem(topology_of(ase.Atoms("F")))
    context = context_of(potential(network).createSystem(topology_of(atoms)), np.full((6, 3), np.nan))
    with pytest.raises(openmm.OpenMMException, match="position of atom 0 is not finite"):
        evaluated(context)


# --- beside a classical force field ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def box(example: dict[str, Any]) -> tuple[Any, Any, list[int], np.ndarray]:
    """Ethanol in some 70 waters: topology, classical system, the molecule's atoms, and positions in Angstrom."""
    modeller, classical, chosen = example["solvated"](14.0)
    positions = np.array(modeller.positions.value_in_unit(openmm.unit.angstrom))
    positions += np.random.default_rng(0).normal(scale=0.03, size=positions.shape)
    return modeller.topology, classical, chosen, positions


def alone(positions: np.ndarray) -> ase.Atoms:
    return ase.Atoms(ase.build.molecule("CH3CH2OH").numbers, positions)


def test_a_molecule_in_classical_water(
    network: NBodyNetwork, example: dict[str, Any], box: tuple, potential: Callable[..., Any]
) -> None:
    """The network's energy takes the place of the force field's energy of the molecule alone."""
    topology, classical, chosen, positions = box
    mixed = potential(network).createMixedSystem(topology, classical, chosen, forceGroup=3)
    context = context_of(mixed, positions)
    atoms = alone(positions[chosen])
    atoms.calc = NBodyCalculator(network)
    energy, forces = evaluated(context, groups={3})
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-9)
    assert np.abs(forces[chosen] - atoms.get_forces()).max() < 1e-9 * np.abs(atoms.get_forces()).max()
    others = np.delete(np.arange(len(positions)), chosen)
    assert not forces[others].any()

    forcefield = app.ForceField(str(EXAMPLE.with_name("ethanol.xml")), "tip3p.xml")
    vacuum = forcefield.createSystem(example["ethanol"]()[0], nonbondedMethod=app.NoCutoff, constraints=None)
    replaced = evaluated(context_of(vacuum, positions[chosen]))
    everything, total = evaluated(context_of(classical, positions)), evaluated(context)
    assert total[0] - energy == pytest.approx(everything[0] - replaced[0], abs=1e-5)
    assert (everything[1] + forces - total[1])[chosen] == pytest.approx(replaced[1], abs=1e-4)
    assert np.abs(total[1] - everything[1])[others].max() < 1e-4


@pytest.mark.parametrize("linked", [False, True], ids=["whole molecule", "link atom"])
def test_mixed_forces_are_slopes(
    network: NBodyNetwork, box: tuple, potential: Callable[..., Any], linked: bool
) -> None:
    """With the cut through the bond C-C, too, where OpenMM-ML puts a hydrogen on the side of the network."""
    topology, classical, chosen, positions = box
    described = [chosen[number] for number in (1, 2, 3, 4, 5)] if linked else chosen
    info = potential(network).createMixedSystem(topology, classical, described, returnInfo=True)
    system = info["system"]
    extra = system.getNumParticles() - len(positions)
    assert extra == int(linked)
    context = context_of(system, np.vstack([positions, np.zeros((extra, 3))]))
    context.computeVirtualSites()
    _, forces = evaluated(context)
    step = 1e-4
    for atom, axis in ((chosen[0], 0), (chosen[1], 1), (chosen[2], 2), (chosen[-1] + 1, 0)):
        energies = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[atom, axis] += sign * step
            context.setPositions(np.vstack([moved, np.zeros((extra, 3))]) * openmm.unit.angstrom)
            context.computeVirtualSites()
            energies.append(evaluated(context)[0])
        slope = -(energies[0] - energies[1]) / (2 * step)
        assert slope == pytest.approx(forces[atom, axis], abs=2e-5 * max(1.0, np.abs(forces).max()))


def test_interpolation(network: NBodyNetwork, box: tuple, potential: Callable[..., Any]) -> None:
    topology, classical, chosen, positions = box
    ends = [
        evaluated(context_of(system, positions))[0]
        for system in (classical, potential(network).createMixedSystem(topology, classical, chosen))
    ]
    system = potential(network).createMixedSystem(topology, classical, chosen, interpolate=True)
    context = context_of(system, positions)
    for share in (0.0, 0.25, 1.0):
        context.setParameter("lambda_interpolate", share)
        assert evaluated(context)[0] == pytest.approx((1 - share) * ends[0] + share * ends[1], rel=1e-7)


@pytest.mark.filterwarnings("ignore::ase_nbody.ExtrapolationWarning")  # the minimiser tries steps that are too long
@pytest.mark.skipif("ethanol" not in shipped_models(), reason="the model 'ethanol' is not shipped")
def test_energy_is_conserved(box: tuple, potential: Callable[..., Any]) -> None:
    """Ethanol in water, on the CPU platform."""
    topology, classical, chosen, positions = box
    system = potential("ethanol").createMixedSystem(topology, classical, chosen, threads=1)
    context = context_of(system, positions, "CPU")
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 20)
    context.setVelocitiesToTemperature(300, 1)
    totals, kinetic = [], []
    for _ in range(40):
        context.getIntegrator().step(2)
        state = context.getState(energy=True)
        kinetic.append(state.getKineticEnergy()._value * KJ_PER_MOL)
        totals.append(state.getPotentialEnergy()._value * KJ_PER_MOL + kinetic[-1])
    assert np.ptp(kinetic) > 0.2
    assert np.ptp(totals) < 0.05 * np.ptp(kinetic)


@pytest.mark.skipif("ethanol" not in shipped_models(), reason="the model 'ethanol' is not shipped")
def test_the_example_runs(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE, "--ps", "0.01", "--box", "14", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    longest = re.search(r"The longest bond of the ethanol is (\S+) Angstrom", done.stdout)
    assert longest, done.stdout
    assert 1.4 < float(longest.group(1)) < 1.7
    table = np.loadtxt(tmp_path / "ethanol_in_water.csv", delimiter=",", skiprows=1)
    assert len(table) == 20
    assert np.isfinite(table[:, :4]).all()


@pytest.mark.skipif("silicon" not in shipped_models(), reason="the model 'silicon' is not shipped")
def test_a_barostat_needs_energies_alone(potential: Callable[..., Any]) -> None:
    """Silicon that was compressed by 6 % in length expands at zero pressure."""
    atoms = ase.build.bulk("Si", a=0.94 * 5.469, cubic=True)
    system = potential("silicon").createSystem(topology_of(atoms), threads=1)
    system.addForce(openmm.MonteCarloBarostat(1.0, 300, 1))
    context = context_of(system, atoms.positions)
    context.setVelocitiesToTemperature(300, 1)
    context.getIntegrator().step(60)
    volume = context.getState().getPeriodicBoxVolume().value_in_unit(openmm.unit.angstrom**3)
    assert volume > 1.05 * atoms.get_volume()
