"""Structures evaluated together: the same bands and the same relaxations, in fewer passes."""

import ase.io
import numpy as np
import pytest
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.optimize.sciopt import SciPyFminBFGS

from ase_nbody import NBodyCalculator
from ase_nbody.engines.side_by_side import evaluate_together, relax_together
from ase_nbody.runtime.charge_watch import ChargeWarning


@pytest.fixture
def calculator(network):
    """Counts its passes."""

    class Counting(NBodyCalculator):
        passes: list[int] = []  # noqa: RUF012

        def evaluate(self, structures):
            self.passes.append(len(structures))
            return super().evaluate(structures)

    Counting.passes.clear()
    return Counting(network)


@pytest.fixture
def images(systems):
    found = [systems["triclinic"]() for _ in range(5)]
    for number, atoms in enumerate(found):
        atoms.rattle(0.02, seed=number)
    return found


def test_a_band_is_the_same_in_one_pass_each(images, calculator, network):
    evaluate_together(calculator, images)
    forces = NEB(images, method="improvedtangent").get_forces()
    assert calculator.passes == [5]
    apart = [atoms.copy() for atoms in images]
    for atoms in apart:
        atoms.calc = NBodyCalculator(network)
    np.testing.assert_allclose(forces, NEB(apart, method="improvedtangent").get_forces(), atol=1e-9)


def test_only_what_has_moved_is_evaluated(images, calculator):
    evaluate_together(calculator, images)
    before = [atoms.get_forces() for atoms in images]
    images[1].positions += 0.01
    images[3].positions[0] += 0.1
    assert np.abs(images[3].get_forces() - before[3]).max() > 1e-4
    np.testing.assert_array_equal(images[0].get_forces(), before[0])
    images[1].get_stress()
    assert calculator.passes == [5, 2]


def test_relaxations_are_those_of_one_by_one(images, calculator, network):
    apart = [atoms.copy() for atoms in images]
    evaluate_together(calculator, images)
    optimizers = [FIRE(atoms, logfile=None) for atoms in images[:3]]
    optimizers += [BFGS(FrechetCellFilter(atoms), logfile=None) for atoms in images[3:]]
    done = relax_together(optimizers, fmax=0.02, steps=15)
    for number, atoms in enumerate(apart):
        atoms.calc = NBodyCalculator(network)
        single = FIRE(atoms, logfile=None) if number < 3 else BFGS(FrechetCellFilter(atoms), logfile=None)
        assert done[number] == single.run(fmax=0.02, steps=15)
        assert optimizers[number].nsteps == single.nsteps
        np.testing.assert_allclose(images[number].positions, atoms.positions, atol=1e-7)
    assert len(calculator.passes) == 1 + max(optimizer.nsteps for optimizer in optimizers)


def test_logs_and_trajectories_are_ases(images, calculator, tmp_path):
    evaluate_together(calculator, images)
    seen = []
    optimizers = [FIRE(atoms, logfile=str(tmp_path / "log")) for atoms in images[:1]]
    optimizers[0].attach(lambda: seen.append(images[0].get_potential_energy()))
    relax_together(optimizers, fmax=0.0, steps=3)
    assert len(seen) == 4
    assert len((tmp_path / "log").read_text().splitlines()) == 5  # with its head


def test_files_keep_the_name_and_keywords_of_the_calculator(images, calculator, tmp_path):
    evaluate_together(calculator, images)
    images[0].get_forces()
    ase.io.write(tmp_path / "image.traj", images[0])
    assert ase.io.read(tmp_path / "image.traj").calc.name == "nbody"
    assert images[0].calc.todict() == calculator.todict()


def test_an_error_is_that_of_the_structure_asked_for(images, calculator):
    evaluate_together(calculator, images)
    expected = images[0].get_potential_energy()
    images[2].positions[0, 0] = np.nan
    images[0].positions += 0.0
    images[1].positions[0] += 0.01
    images[1].get_potential_energy()
    assert images[0].get_potential_energy() == expected
    with pytest.raises(CalculatorSetupError, match="not finite"):
        images[2].get_potential_energy()


@pytest.mark.filterwarnings("error::ase_nbody.runtime.charge_watch.ChargeWarning")
def test_a_warning_as_an_error_is_that_of_the_structure_asked_for(images, calculator):
    evaluate_together(calculator, images)
    images[2].info["charge"] = 1
    assert np.isfinite(images[0].get_potential_energy())
    for _ in range(2):
        with pytest.raises(ChargeWarning):
            images[2].get_potential_energy()


def test_an_interrupted_pass_leaves_no_results_of_older_structures(images, calculator, monkeypatch):
    """Ctrl-C in a notebook, or an ``ExtrapolationWarning`` that the user has made an error."""
    evaluate_together(calculator, images)
    images[0].get_forces()
    for atoms in images[:2]:
        atoms.positions[0] += 0.1

    def interrupted(self, structures):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(calculator), "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            images[0].get_forces()
    np.testing.assert_array_equal(images[1].get_forces(), calculator.evaluate([images[1]])[0]["forces"])


def test_a_charge_that_is_set_later_causes_the_warning_here_too(images, calculator):
    evaluate_together(calculator, images)
    images[0].get_potential_energy()
    images[0].info["charge"] = 1
    with pytest.warns(ChargeWarning, match=r"total charge of \+1 e"):
        images[0].get_potential_energy()


def test_molecules_have_no_stress(systems, calculator):
    atoms = systems["molecule"]()
    evaluate_together(calculator, [atoms])
    with pytest.raises(PropertyNotImplementedError, match="only a cell with a volume"):
        atoms.get_stress()


def test_an_optimiser_without_single_steps_is_refused(images, calculator):
    evaluate_together(calculator, images)
    with pytest.raises(TypeError, match=r"SciPyFminBFGS cannot make one step at a time.*take BFGS"):
        relax_together([SciPyFminBFGS(atoms, logfile=None) for atoms in images])
