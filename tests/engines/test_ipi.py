"""i-PI's driver agrees with the calculator, and i-PI runs with it over sockets, classically and with beads."""

import copy
import importlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ase
import ase.io
import numpy as np
import pytest

from ase_nbody import NBodyCalculator, NBodyNetwork, save_model
from ase_nbody.data import DataError
from ase_nbody.files.archive import shipped_models
from ase_nbody.structure import StructureError

pytest.importorskip("ipi", reason='needs i-PI: pip install ".[ipi]"')

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ipi"
BOHR = 1.8897261  # i-PI's, in one Angstrom
HARTREE = 0.036749326  # i-PI's, in one eV


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., Any]:
    """A driver made as i-PI makes it, from the path of its file."""
    load_pes = importlib.import_module("ipi.pes").load_pes
    path = importlib.import_module("ase_nbody.engines.ipi_driver").__file__

    def make(atoms: ase.Atoms, model: Any, **parameters: Any) -> Any:
        template = tmp_path / "template.xyz"
        atoms = atoms.copy()
        atoms.info.clear()
        ase.io.write(template, atoms, format="extxyz")
        if not isinstance(model, str):
            model = str(save_model(model, tmp_path / "model.nbody"))
        return load_pes("custom", path)(template=str(template), model=model, **parameters)

    return make


def sent(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Cell and positions as i-PI sends them."""
    return atoms.cell.array.T * BOHR, atoms.positions * BOHR


def assert_agree(result: Any, atoms: ase.Atoms, model: Any) -> None:
    atoms.calc = NBodyCalculator(model)
    energy, forces, virial, _ = result
    assert energy / HARTREE == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert np.abs(forces * BOHR / HARTREE - atoms.get_forces()).max() < 1e-9 * np.abs(atoms.get_forces()).max()
    expected = -atoms.get_stress(voigt=False) * atoms.get_volume()
    assert np.abs(virial / HARTREE - expected).max() < 1e-9 * np.abs(expected).max()


def boxed(atoms: ase.Atoms, vacuum: float = 6.0) -> ase.Atoms:
    atoms.center(vacuum=vacuum)
    atoms.pbc = False
    return atoms


@pytest.mark.parametrize("name", ["molecule", "triclinic", "slab in a box"])
def test_agrees_with_the_calculator(
    network: NBodyNetwork, systems: dict[str, Callable], driver: Callable[..., Any], name: str
) -> None:
    atoms = boxed(systems[name]()) if name == "molecule" else systems[name]()
    made = driver(atoms, network)
    assert_agree(made(*sent(atoms)), atoms, network)
    atoms.positions += 0.01
    atoms.positions[0] += 0.02
    assert_agree(made(*sent(atoms)), atoms, network)


def test_beads_share_one_pass(network: NBodyNetwork, systems: dict[str, Callable], driver: Callable[..., Any]) -> None:
    committee = [network, copy.deepcopy(network)]
    for weight in committee[1].parameters():
        weight.data *= 1.01
    atoms = boxed(systems["molecule"]())
    beads = []
    for seed in range(3):
        beads.append(atoms.copy())
        beads[-1].rattle(0.05, seed=seed)
    made = driver(atoms, committee)
    cells, positions = map(list, zip(*map(sent, beads), strict=True))
    for result, bead in zip(made(cells, positions), beads, strict=True):
        assert_agree(result, bead, committee)
        assert json.loads(result[3])["energy_spread"] == pytest.approx(bead.calc.energy_spread, rel=1e-9)


def test_one_network_has_no_spread(
    network: NBodyNetwork, systems: dict[str, Callable], driver: Callable[..., Any]
) -> None:
    """i-PI's inputs ask for it by name, whatever the model."""
    atoms = boxed(systems["molecule"]())
    assert json.loads(driver(atoms, network)(*sent(atoms))[3]) == {"energy_spread": 0.0}


def test_template(
    labelled_network: NBodyNetwork, liquid: ase.Atoms, driver: Callable[..., Any], network: NBodyNetwork
) -> None:
    """Labels and periodic directions come from the template, or from ``pbc``; the cell from i-PI."""
    assert_agree(driver(liquid, labelled_network)(*sent(liquid)), liquid, labelled_network)
    without = liquid.copy()
    without.pbc = False
    assert_agree(driver(without, network, pbc=True)(*sent(liquid)), liquid, network)


def test_faults_are_named(network: NBodyNetwork, systems: dict, liquid: ase.Atoms, driver: Callable[..., Any]) -> None:
    atoms = boxed(systems["molecule"]())
    with pytest.raises(ValueError, match=r"parameters are not right: .*'modle'"):
        driver(atoms, network, modle="ethanol")
    from ase_nbody.engines.ipi_driver import NBodyDriver

    for missing in ("template", "model"):
        given = {"template": "ethanol.xyz", "model": "ethanol"}
        del given[missing]
        with pytest.raises(ValueError, match=f"the driver needs a {missing}: write -o model="):
            NBodyDriver(**given)
    with pytest.raises(ValueError, match="pbc is 'T', but must be True or False"):
        driver(atoms, network, pbc="T")
    with pytest.raises(FileNotFoundError, match="shipped models are"):
        driver(atoms, "no such model")
    with pytest.raises(StructureError, match="contains F"):
        driver(boxed(ase.Atoms("F")), network)
    with pytest.raises(ValueError, match="i-PI has 5 atoms, but the template has 6"):
        driver(atoms, network)(atoms.cell.array.T * BOHR, atoms.positions[:5] * BOHR)


def test_a_template_is_read_within_the_bounds_of_data(network: NBodyNetwork, tmp_path: Path) -> None:
    """A frame that claims a million million atoms is refused before memory is spent."""
    from ase_nbody.engines.ipi_driver import NBodyDriver

    model, template = save_model(network, tmp_path / "model.nbody"), tmp_path / "template.xyz"
    template.write_text("999999999999\n\nH 0 0 0\n")
    with pytest.raises(DataError, match="claims to have 999999999999 atoms"):
        NBodyDriver(str(template), str(model))


def test_a_template_of_one_atom_is_judged_in_the_cell_of_i_pi(make_network: Callable, driver: Callable) -> None:
    """A free atom has its isolated-atom energy, whatever its spin; in a small cell it is a crystal of radicals."""
    network = make_network(total_charges=(0,), multiplicities=(1,))
    atom = ase.Atoms("H", cell=30.0 * np.eye(3), pbc=True)
    made = driver(atom, network)
    energy, forces, *_ = made(*sent(atom))
    assert energy / HARTREE == pytest.approx(network.config.isolated_atom_energies["H"], rel=1e-12)
    assert not forces.any()
    atom.set_cell(2.0 * np.eye(3))
    with pytest.raises(StructureError, match=r"2 \(doublet\)"):
        made(*sent(atom))


def test_a_liquid_is_not_taken_for_a_cluster(
    network: NBodyNetwork, systems: dict, liquid: ase.Atoms, driver: Callable[..., Any]
) -> None:
    without = liquid.copy()
    without.pbc = False
    with pytest.raises(ValueError, match=r"is not periodic along lattice vector 0, .* only .* are free .*pbc=True"):
        driver(without, network)(*sent(liquid))
    cut = boxed(systems["molecule"]())
    made = driver(cut, network)
    made(*sent(cut))
    cut.positions[0, 2] += cut.cell[2, 2]  # as wrapping does to a molecule at the edge of the box
    with pytest.raises(ValueError, match=r"along lattice vector 2, .*pbc='False'"):
        made(*sent(cut))


@pytest.mark.skipif("ethanol" not in shipped_models(), reason="the model 'ethanol' is not shipped")
@pytest.mark.parametrize(("beads", "options"), [(1, ["--inet", "{port}"]), (8, [])], ids=["classical", "8 beads"])
def test_i_pi_runs(beads: int, options: list[str], tmp_path: Path, unused_port: int) -> None:
    """Its energies are the calculator's; quantum nuclei have more kinetic energy than classical ones."""
    steps = 20
    command = [sys.executable, EXAMPLE / "run.py", "--beads", str(beads), "--steps", str(steps), "--output", tmp_path]
    command += [option.format(port=unused_port) for option in options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + (tmp_path / "ipi.log").read_text()
    found = re.search(
        r"drifts by (\S+) meV .*Kinetic energy: (\S+) eV \(classical nuclei at 300 K: (\S+) eV", done.stdout, re.S
    )
    assert found, done.stdout
    drift, kinetic, classical = map(float, found.groups())
    assert drift < 40.0
    assert kinetic > 2 * classical if beads > 1 else kinetic == pytest.approx(classical, abs=0.002)
    potential = np.loadtxt(tmp_path / "ethanol.out")[:, 4]
    assert len(potential) == steps + 1
    calc = NBodyCalculator("ethanol")
    last = [ase.io.read(path) for path in sorted(tmp_path.glob("ethanol.pos_*.extxyz"))]
    assert len(last) == beads
    for frame in last:
        frame.pbc = False  # i-PI writes a box in any case
    results = calc.evaluate(last)
    mean = np.mean([result["energy"] for result in results])
    spread = np.loadtxt(tmp_path / "ethanol.spread_0")[-1]
    assert spread == pytest.approx(results[0]["energy_spread"], abs=1e-6)
    assert potential[-1] == pytest.approx(mean, abs=1e-5)  # files have eight decimals


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def test_the_example_gives_up_where_i_pi_has_failed(
    script: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket may live on after its steps have failed. The driver, and the example, waited for ever."""
    example = script(EXAMPLE / "run.py")
    monkeypatch.setattr(example, "PATIENCE_SECONDS", 0.3)
    (tmp_path / "ipi.log").touch()
    with (
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as client,
        pytest.raises(SystemExit, match="i-PI has written nothing"),
    ):
        example.follow(client, tmp_path)
    assert client.returncode != 0
