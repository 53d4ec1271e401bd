"""A resumed run equals the unbroken one to the last bit, whatever the integrator remembers."""

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator
from ase_nbody.dynamics import ResumableRun, integrators, resumable
from ase_nbody.dynamics.integrators import MEMORY, get_variables, target_temperature
from ase_nbody.hierarchy import build


def test_a_resumed_run_equals_the_unbroken_one(kind, dynamics_of, tmp_path, run):
    """All files are equal to the last byte, although the second half starts from other atoms, momenta and seed."""
    unbroken = run(dynamics_of(kind), tmp_path / "unbroken", 20)
    run(dynamics_of(kind), tmp_path / "broken", 10)
    assert run(dynamics_of(kind, seed=1), tmp_path / "broken", 20, resume=True) == unbroken


VARIABLES = [
    ("langevin", "rng"),
    ("langevin, legacy", "rng"),
    *[("bussi", name) for name in ("rng", "transferred_energy")],
    *[
        (kind, name)
        for kind, integrator in (
            ("nose-hoover", integrators.NoseHooverChainNVT),
            ("isotropic npt", integrators.IsotropicMTKNPT),
            ("npt", integrators.MTKNPT),
        )
        for name in MEMORY[integrator].variables
    ],
]


@pytest.mark.parametrize(("kind", "forgotten"), VARIABLES)
def test_every_variable_is_needed(kind, forgotten, dynamics_of, tmp_path, monkeypatch, run):
    """The runs of the test above differ as soon as one variable is forgotten."""
    unbroken = run(dynamics_of(kind), tmp_path / "unbroken", 10)
    run(dynamics_of(kind), tmp_path / "broken", 5)

    def set_most(dynamics, variables):
        own = get_variables(dynamics)
        integrators.set_variables(dynamics, {**variables, forgotten: own[forgotten]})

    monkeypatch.setattr(resumable, "set_variables", set_most)
    assert run(dynamics_of(kind, seed=1), tmp_path / "broken", 10, resume=True) != unbroken


# Each step writes these before it reads them, or ``run`` sets them.
TRANSIENT = {"nsteps", "max_steps", "v", "rnd_pos", "rnd_vel", "optimizable", "_cell"}


def attributes(thing, prefix: str = "") -> dict[str, str]:
    """All attributes as text by their dotted names, including those of thermostat and barostat."""
    found = {}
    for name, value in vars(thing).items():
        if type(value).__module__.startswith("ase.md.nose_hoover_chain"):
            found |= attributes(value, f"{prefix}{name}.")
        elif name == "rng":
            found[prefix + name] = str(integrators._get_state(value))
        elif isinstance(value, (float, int, str, np.ndarray, np.generic)):
            found[prefix + name] = repr(np.asarray(value).tolist())
    return found


def test_no_variable_is_missing(kind, dynamics_of):
    """Every attribute that steps change is listed as a variable."""
    dynamics = dynamics_of(kind)
    before = attributes(dynamics)
    dynamics.run(3)
    changed = {name for name, value in attributes(dynamics).items() if before.get(name) != value}
    memory = MEMORY[type(dynamics)]
    assert changed - TRANSIENT <= set(memory.variables)
    assert not changed & set(memory.settings)


@pytest.mark.parametrize("forgetting", [True, False])
def test_neighbours_are_searched_at_the_same_steps(forgetting, dynamics_of, tmp_path, monkeypatch, run):
    """The age of a list changes the last digits, so lists are forgotten after each frame.

    Otherwise the resumed run would search for neighbours at other steps than the unbroken one.
    """
    searched, find_edges = [], build.find_edges
    monkeypatch.setattr(build, "find_edges", lambda s, *rest: (searched.append(s.positions), find_edges(s, *rest))[1])
    if not forgetting:
        monkeypatch.setattr(NBodyCalculator, "forget", lambda self: None)
    run(dynamics_of("verlet"), tmp_path / "unbroken", 20)
    unbroken = searched.copy()
    run(dynamics_of("verlet"), tmp_path / "broken", 10)
    searched.clear()
    run(dynamics_of("verlet", seed=1), tmp_path / "broken", 20, resume=True)
    resumed = searched[1:]  # the first is at the restored frame
    assert len(unbroken) == (5 if forgetting else 1)
    assert np.array_equal(resumed, unbroken[-2:] if forgetting else [])


def test_checkpoints_do_not_change_the_run(dynamics_of, tmp_path, run):
    """Fewer checkpoints, or a stop and a resumption with another interval between them, give the same files."""
    unbroken = run(dynamics_of("langevin"), tmp_path / "often", 40)
    assert run(dynamics_of("langevin"), tmp_path / "rarely", 40, checkpoint=20) == unbroken
    with ResumableRun(dynamics_of("langevin"), tmp_path / "stopped", interval=5, checkpoint=35) as running:
        running.dynamics.attach(running.stop, interval=-12)
        assert not running.run_to(40)
        assert running.dynamics.nsteps == 15
    assert run(dynamics_of("langevin"), tmp_path / "stopped", 40, checkpoint=10, resume=True) == unbroken


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_frames_before_an_error_are_kept(error, dynamics_of, tmp_path, run):
    unbroken = run(dynamics_of("langevin"), tmp_path / "unbroken", 40)

    def fail():
        raise error

    with ResumableRun(dynamics_of("langevin"), tmp_path / "broken", interval=5, checkpoint=40) as running:
        running.dynamics.attach(fail, interval=-33)
        with pytest.raises(error):
            running.run_to(40)
        assert running.read_table()["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]
    assert run(dynamics_of("langevin"), tmp_path / "broken", 40, resume=True) == unbroken


def test_trajectory_and_table_hold_the_steps(dynamics_of, tmp_path):
    dynamics = dynamics_of("langevin")
    with ResumableRun(dynamics, tmp_path, interval=5) as running:
        assert running.resumed_at is None
        running.run_to(20)
        table = running.read_table()
    frames = ase.io.read(tmp_path / "trajectory.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 5, 10, 15, 20]
    atoms, last = dynamics.atoms, frames[-1]
    for ours, theirs in (
        (last.positions, atoms.positions),
        (last.get_momenta(), atoms.get_momenta()),
        (last.get_forces(), atoms.get_forces()),
        (last.get_stress(), atoms.get_stress()),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert table["total_eV"][-1] == atoms.get_total_energy()
    assert table["temperature_K"][-1] == atoms.get_temperature()
    assert table["time_ps"].tolist() == [0.0, 0.0025, 0.005, 0.0075, 0.01]
    assert table["pressure_GPa"][-1] == -atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
    assert "spread_eV_per_A" not in table.dtype.names


def test_any_calculator(tmp_path, run):
    """EMT keeps a neighbour list that cannot be forgotten: it continues to round-off."""

    def copper():
        atoms = bulk("Cu", cubic=True)
        atoms.calc = EMT()
        atoms.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(4, 3)))
        return VelocityVerlet(atoms, 2 * units.fs)

    run(copper(), tmp_path / "unbroken", 20)
    run(copper(), tmp_path / "broken", 10)
    run(copper(), tmp_path / "broken", 20, resume=True)
    unbroken, resumed = (ase.io.read(tmp_path / name / "trajectory.extxyz") for name in ("unbroken", "broken"))
    np.testing.assert_allclose(resumed.positions, unbroken.positions, atol=1e-8)


def test_the_module_numpy_random_can_be_continued(dynamics_of, tmp_path, run):
    """Langevin uses this module when it is given no generator."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        outputs = []
        for break_at in (20, 10):
            np.random.seed(3)  # noqa: NPY002
            for steps in {break_at, 20}:
                atoms = dynamics_of("verlet").atoms
                dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.5, fixcm=False)
                files = run(dynamics, tmp_path / str(break_at), steps, resume=True)
                np.random.seed(4)  # noqa: NPY002
            outputs.append(files)
        assert outputs[0] == outputs[1]
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_targets_of_thermostats(kind, dynamics_of):
    expected = None if kind == "verlet" else pytest.approx(300.0)
    assert target_temperature(dynamics_of(kind)) == expected
