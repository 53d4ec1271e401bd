"""``NBodyModel`` conforms to torch-sim's test, agrees with the calculator, and runs in optimisers and dynamics."""

import importlib
from collections.abc import Callable
from typing import Any

import ase
import ase.build
import numpy as np
import pytest
import torch

from ase_nbody import NBodyCalculator, NBodyNetwork
from ase_nbody.files.archive import shipped_models
from ase_nbody.structure import StructureError

MODULE = "ase_nbody.engines.torchsim"
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch-sim still scripts functions


@pytest.fixture(scope="module")
def ts() -> Any:
    """torch-sim, if there is a version of it that has this interface."""
    reason = "needs torch-sim 0.6, which needs Python 3.12"
    try:
        importlib.import_module(MODULE)
    except ImportError as error:
        if error.name != "torch_sim":
            raise
        pytest.skip(reason)
    return pytest.importorskip("torch_sim", reason=reason)


def model_of(networks: Any, **keywords: Any) -> Any:
    return importlib.import_module(MODULE).NBodyModel(networks, **keywords)


def state_of(ts: Any, structures: list[ase.Atoms], dtype: torch.dtype = torch.float64, **keywords: Any) -> Any:
    return ts.io.atoms_to_state(structures, CPU, dtype, **keywords)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("members", [1, 2])
def test_conforms(ts: Any, make_network: Callable[..., NBodyNetwork], dtype: torch.dtype, members: int) -> None:
    """To torch-sim's own test, whose systems are Si, Mg, Fe and benzene."""
    elements = {"species": ("H", "C", "Mg", "Si", "Fe"), "isolated_atom_energies": {}}
    networks = [make_network(seed, **elements) for seed in range(members)]
    interface = importlib.import_module("torch_sim.models.interface")
    interface.validate_model_outputs(model_of(networks, dtype=dtype), CPU, dtype)


@pytest.mark.parametrize("names", [["triclinic", "left-handed", "unwrapped", "crystal"], ["triclinic"]])
@pytest.mark.parametrize("members", [1, 2])
def test_agrees_with_the_calculator(
    ts: Any, make_network: Callable[..., NBodyNetwork], systems: dict[str, Callable], names: list[str], members: int
) -> None:
    networks = [make_network(seed) for seed in range(members)]
    structures = [systems[name]() for name in names]
    structures[-1].positions *= 1.01
    found = model_of(networks)(state_of(ts, structures))
    first = 0
    for number, atoms in enumerate(structures):
        atoms.calc = NBodyCalculator(networks)
        own = slice(first, first := first + len(atoms))
        forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
        assert found["energy"][number].item() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        assert np.abs(found["forces"][own].numpy() - forces).max() < 1e-9 * np.abs(forces).max()
        assert np.abs(found["stress"][number].numpy() - stress).max() < 1e-9 * np.abs(stress).max()
        if members > 1:
            assert found["energy_spread"][number].item() == pytest.approx(atoms.calc.energy_spread, rel=1e-9)
            assert np.allclose(found["forces_spread"][own], atoms.calc.forces_spread, rtol=1e-8, atol=1e-12)


def test_labels_that_are_no_integers_are_refused(ts: Any, network: NBodyNetwork, systems: dict[str, Callable]) -> None:
    atoms = systems["triclinic"]()
    atoms.set_array("parts", np.array([0.0, 0.7, 1.0]))
    with pytest.raises(StructureError, match="labels must be an array of int64"):
        model_of(network)(state_of(ts, [atoms], atom_extras_map={"parts": "parts"}))


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 2**24), (torch.float64, 2**53)])
def test_labels_that_the_state_takes_for_one_another_are_refused(
    ts: Any, labelled_network: NBodyNetwork, liquid: ase.Atoms, dtype: torch.dtype, largest: int
) -> None:
    """2^24 + 1 is 2^24 in single precision: two molecules would become one."""
    model, energies = model_of(labelled_network, dtype=dtype), []
    for first in (0, largest - 1 - liquid.arrays["parts"].max(), largest):
        moved = liquid.copy()
        moved.arrays["parts"] = np.where(moved.arrays["parts"] < 0, -1, moved.arrays["parts"] + first)
        state = state_of(ts, [moved], dtype, atom_extras_map={"parts": "parts"})
        if first < largest:
            energies.append(model(state)["energy"].item())
        else:
            with pytest.raises(StructureError, match="cannot tell such labels from each other"):
                model(state)
    assert energies[0] == energies[1]


def test_molecules_have_no_stress(ts: Any, network: NBodyNetwork, systems: dict[str, Callable]) -> None:
    structures = [systems["molecule"](), systems["lone carbon"]()]
    found = model_of(network)(state_of(ts, structures))
    assert found["stress"].isnan().all()
    assert found["energy"][1].item() == pytest.approx(NBodyCalculator(network).get_potential_energy(structures[1]))
    assert found["forces"].isfinite().all()


def test_only_what_is_wanted(ts: Any, network: NBodyNetwork, systems: dict[str, Callable]) -> None:
    model = model_of(network, compute_stress=False)
    state = state_of(ts, [systems["crystal"]()])
    assert model(state).keys() == {"energy", "forces"}
    model.compute_forces, model.compute_stress = False, True
    assert model(state).keys() == {"energy", "stress"}


def test_labels_and_charges(
    ts: Any, labelled_network: NBodyNetwork, make_network: Callable[..., NBodyNetwork], liquid: ase.Atoms
) -> None:
    state = state_of(ts, [liquid, liquid], atom_extras_map={"parts": "parts"})
    energies = model_of(labelled_network)(state)["energy"]
    assert energies.tolist() == pytest.approx([NBodyCalculator(labelled_network).get_potential_energy(liquid)] * 2)
    liquid.info["charge"] = 1
    charged = state_of(ts, [liquid], system_extras_map={"charge": "charge"})
    model_of(make_network(outputs=["charges"]))(charged)  # looks at it
    with pytest.warns(UserWarning, match=r"total charge of \+1 e"):
        model_of(make_network())(charged)


@pytest.mark.parametrize("name", ["charge", "total_charge", "spin", "total_spin", "spin_multiplicity", "uhf"])
def test_charges_and_spins_are_refused_by_every_name(
    ts: Any, make_network: Callable[..., NBodyNetwork], systems: dict[str, Callable], name: str
) -> None:
    model = model_of(make_network(total_charges=(0,), multiplicities=(1,)))
    atoms = systems["molecule"]()
    model(state_of(ts, [atoms]))
    atoms.info[name] = 3 if "spin" in name else 2
    with pytest.raises(StructureError, match=r"total charge of \+2 e|multiplicity 3"):
        model(state_of(ts, [atoms], system_extras_map={name: name}))


def test_magnetic_moments_are_a_spin(
    ts: Any, make_network: Callable[..., NBodyNetwork], systems: dict[str, Callable]
) -> None:
    model, atoms = model_of(make_network(multiplicities=(1,))), systems["molecule"]()
    atoms.set_initial_magnetic_moments([1.0, 1.0, *[0.0] * (len(atoms) - 2)])
    with pytest.raises(StructureError, match="multiplicity 3"):
        model(state_of(ts, [atoms], atom_extras_map={"magnetic_moments": "initial_magmoms"}))


def test_faults_are_named(ts: Any, network: NBodyNetwork, systems: dict[str, Callable]) -> None:
    structures = [systems["crystal"](), ase.build.bulk("Si")]
    with pytest.raises(StructureError, match=r"structure 1: the model knows H, C, .*contains Si"):
        model_of(network)(state_of(ts, structures))
    with pytest.raises(ValueError, match="dtype must be one of"):
        model_of(network, dtype=torch.float16)
    with pytest.raises(FileNotFoundError, match="shipped models are"):
        model_of("no such model")


@pytest.fixture(scope="module")
def silicon(ts: Any) -> Any:
    if "silicon" not in shipped_models():
        pytest.skip("the model 'silicon' is not shipped")
    return model_of("silicon")


def strained(count: int) -> list[ase.Atoms]:
    """Cells of silicon, each of another size and rattled."""
    structures = [ase.build.bulk("Si"), ase.build.bulk("Si", cubic=True), ase.build.bulk("Si").repeat((2, 1, 1))][
        :count
    ]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.08, seed=seed)
        atoms.set_cell(atoms.cell.array * (1.0 + 0.02 * seed), scale_atoms=True)
    return structures


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_batched_optimisers(ts: Any, silicon: Any, optimizer: str) -> None:
    """All cells reach diamond at once, each in its own number of steps."""
    final = ts.optimize(
        system=strained(3),
        model=silicon,
        optimizer=getattr(ts.Optimizer, optimizer),
        init_kwargs={"cell_filter": ts.CellFilter.frechet},
        max_steps=300,
        convergence_fn=ts.generate_force_convergence_fn(force_tol=0.02, include_cell_forces=True),
    )
    per_atom = final.energy / torch.bincount(final.system_idx)
    assert per_atom.tolist() == pytest.approx([-5.4245] * 3, abs=0.001)
    assert final.forces.abs().max() < 0.02


def test_dynamics(ts: Any, silicon: Any) -> None:
    """Energies of a batch at constant energy are conserved; a thermostat heats it."""
    structures = strained(2)
    kept = state_of(ts, structures)
    kept.rng = 1
    state = ts.nve_init(kept, silicon, kT=torch.tensor(300 * 8.617e-5, dtype=torch.float64))
    totals, kinetic = [], []
    for _ in range(40):
        state = ts.nve_step(state, silicon, dt=torch.tensor(0.1, dtype=torch.float64))  # 1 fs
        kinetic.append(ts.calc_kinetic_energy(masses=state.masses, momenta=state.momenta, system_idx=state.system_idx))
        totals.append(state.energy + kinetic[-1])
    fluctuation, exchanged = (np.ptp(torch.stack(energies).numpy(), axis=0) for energies in (totals, kinetic))
    assert (fluctuation < 0.02 * exchanged).all()
    final = ts.integrate(
        system=structures,
        model=silicon,
        integrator=ts.Integrator.nvt_langevin,
        n_steps=40,
        timestep=0.002,
        temperature=600,
    )
    assert final.positions.isfinite().all()
    assert ts.calc_kT(masses=final.masses, momenta=final.momenta, system_idx=final.system_idx).min() > 0
