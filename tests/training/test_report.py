"""The report is complete, opens offline, and shows the errors of the model."""

import dataclasses
import re
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import load_model
from ase_nbody.data import DataError, LabelledStructure, read_labelled
from ase_nbody.data.labels import BY_NAME
from ase_nbody.data.statistics import evenly_spaced
from ase_nbody.files.archive import read_card
from ase_nbody.structure import Structure
from ase_nbody.training.compared import Part
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.evaluation import evaluate_model, predict
from ase_nbody.training.figures import force_histogram, learning_curves, parity_plot
from ase_nbody.training.report import advice, write_report
from ase_nbody.training.run import train
from ase_nbody.training.splits import take
from ase_nbody.training.worst import as_extxyz, worst_frames


@pytest.fixture
def run(configuration, tmp_path):
    """The output folder of a short training on 24 frames, with its report."""
    config = TrainingConfig.from_yaml(configuration(), ["report=true"])
    train(config)
    return tmp_path / "run"


def test_report_is_complete_and_opens_offline(run):
    page = (run / "report.html").read_text()
    names = {path.stem for path in (run / "figures").glob("*.png")}
    assert names == {"learning", "parity_energy", "parity_forces", "parity_stress", "force_errors"}
    assert page.count("data:image/png;base64,") == len(names)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for heading in ("What to do next", "Errors", "Forces by element", "Worst frames"):
        assert heading in page
    assert re.search(r"<td>Cu</td>", page)


def test_the_report_shows_the_errors_of_the_model(run, configuration, tmp_path):
    network, frames = load_model(run / "model.nbody"), read_labelled(tmp_path / "data.extxyz")
    expected = evaluate_model(network, frames)
    write_report(network, {"training": frames}, run / "metrics.csv", tmp_path)
    page = (tmp_path / "report.html").read_text()
    for quantity, name in (("energy", "energy_per_atom"), ("forces", "forces"), ("stress", "stress")):
        row = re.search(rf"<td>{quantity}</td><td>([^<]+)</td><td>([^<]+)</td>", page)
        assert float(row[1]) == pytest.approx(expected[name]["mae"], rel=5e-3)
        assert float(row[2]) == pytest.approx(expected[name]["rmse"], rel=5e-3)


def test_learning_curves_have_a_panel_for_each_unit_and_whole_epochs():
    columns = ["energy mae (meV)", "energy_per_atom mae (meV/atom)", "forces mae (meV/Angstrom)"]
    columns += ["forces_H mae (meV/Angstrom)", "stress mae (meV/Angstrom^3)", "stress rmse (meV/Angstrom^3)"]
    figure = learning_curves([{"epoch": float(k)} | dict.fromkeys(columns, 2.0 / k) for k in (1, 2, 3)])
    figure.draw_without_rendering()
    assert [axes.get_ylabel() for axes in figure.axes] == [
        f"MAE ({unit})" for unit in ("meV", "meV/atom", "meV/Angstrom", "meV/Angstrom³")
    ]
    names = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert names == [["energy"], ["energy per atom"], ["forces", "forces on H"], ["stress"]]
    assert all(float(tick).is_integer() for tick in figure.axes[-1].get_xticks())
    for axes in figure.axes:
        assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1, "beside the data"


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_parity_plots_are_square_and_say_the_errors(name, network, frames, tmp_path):
    ase.io.write(tmp_path / "data.extxyz", frames[:3])
    reference = read_labelled(tmp_path / "data.extxyz")
    predicted = predict(network, reference)
    figure = parity_plot(
        [Part("training", reference, predicted), Part("test", reference[:1], predicted[:1])], BY_NAME[name]
    )
    figure.draw_without_rendering()
    (axes,) = figure.axes
    box = axes.get_window_extent()
    assert box.width == pytest.approx(box.height, abs=1.0)
    assert axes.get_xlim() == axes.get_ylim()
    expected = evaluate_model(network, reference)["energy_per_atom" if name == "energy" else name]
    assert f"training: MAE {expected['mae']:.3g}, RMSE {expected['rmse']:.3g} meV" in axes.texts[0].get_text()
    assert axes.texts[1].get_text().startswith("test: MAE")


def test_predictions_do_not_depend_on_the_batch(run, tmp_path):
    frames = read_labelled(tmp_path / "data.extxyz")
    network = load_model(run / "model.nbody")
    for frame, alone in zip(predict(network, frames), (predict(network, [frame])[0] for frame in frames), strict=True):
        assert frame.energy == pytest.approx(alone.energy, rel=1e-12)
        assert frame.forces == pytest.approx(alone.forces, abs=1e-10)
        assert frame.stress == pytest.approx(alone.stress, abs=1e-10, nan_ok=True)


def test_worst_frames_are_those_of_the_file(run, tmp_path):
    """Each names its file and frame there, whatever the split did; ``worst.extxyz`` holds them with both labels."""
    frames, worst = ase.io.read(tmp_path / "data.extxyz", ":"), ase.io.read(run / "worst.extxyz", ":")
    page = (run / "report.html").read_text()
    assert len(worst) == 4
    for atoms in worst:
        assert atoms.info["source"] == str(tmp_path / "data.extxyz")
        number = atoms.info["source_frame"]
        original = frames[number]
        assert f"<td>{tmp_path / 'data.extxyz'}, frame {number}</td>" in page
        assert atoms.positions == pytest.approx(original.positions, abs=1e-7)
        assert atoms.get_forces() == pytest.approx(original.get_forces(), abs=1e-7)
        error = atoms.arrays["predicted_forces"] - original.get_forces()
        assert atoms.info["forces_rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert [atoms.info["forces_rmse"] for atoms in worst] == sorted(
        (a.info["forces_rmse"] for a in worst), reverse=True
    )


def test_a_worst_frame_keeps_the_labels_of_its_parts_and_may_lack_an_energy(tmp_path):
    """A network with labelled levels could not recompute it otherwise."""
    atoms = Atoms("H2O", [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    frame = labelled_structure(atoms, parts=[0, 0, 0], energy=np.nan, force=0.0)
    worst = worst_frames([frame], [labelled_structure(atoms, parts=[0, 0, 0], energy=-3.0, force=1.0)])
    assert worst[0].row() == ("-", "1e+03", "-", "0 (H)")
    (tmp_path / "worst.extxyz").write_bytes(as_extxyz(worst, "test"))
    assert ase.io.read(tmp_path / "worst.extxyz").arrays["parts"].tolist() == [0, 0, 0]


def test_a_worst_frame_of_a_crystal_has_both_stresses(tmp_path):
    atoms = Atoms("Si2", [[0.0, 0.0, 0.0], [1.4, 1.4, 1.4]], cell=np.eye(3) * 5.4, pbc=True)
    reference, predicted = np.diag([0.1, 0.2, 0.3]), np.diag([0.3, 0.2, 0.1])
    predicted[0, 1] = predicted[1, 0] = 0.05
    frames = [
        LabelledStructure(Structure.from_atoms(atoms), 0.0, np.full((2, 3), force), stress)
        for force, stress in ((0.0, reference), (1.0, predicted))
    ]
    (tmp_path / "worst.extxyz").write_bytes(as_extxyz(worst_frames(frames[:1], frames[1:]), "test"))
    read = ase.io.read(tmp_path / "worst.extxyz")
    assert read.get_stress(voigt=False) == pytest.approx(reference)
    assert read.info["predicted_stress"] == pytest.approx([0.3, 0.2, 0.1, 0.0, 0.0, 0.05])


def test_the_histogram_takes_an_element_whose_errors_all_lie_beyond():
    many, one = Atoms("H1000", np.arange(3000.0).reshape(-1, 3)), Atoms("Cl", [[0.0, 0.0, 0.0]])
    reference = [labelled_structure(atoms, energy=0.0, force=0.0) for atoms in (many, one)]
    predicted = [labelled_structure(many, energy=0.0, force=0.1), labelled_structure(one, energy=0.0, force=5.0)]
    (axes,) = force_histogram(Part("test", reference, predicted)).axes
    heights = {patch.get_label(): patch.get_data().values for patch in axes.patches}
    assert heights["Cl"].tolist() == [0.0] * 80
    edges = axes.patches[0].get_data().edges
    assert heights["H"] @ np.diff(edges) == pytest.approx(1.0)


def labelled_structure(atoms, *, energy, force, parts=None):
    """The structure with an energy and with one value for all components of the forces."""
    if parts is not None:
        atoms.set_array("parts", np.array(parts))
    return LabelledStructure(
        Structure.from_atoms(atoms), energy, np.full((len(atoms), 3), force), np.full((3, 3), np.nan)
    )


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_set_with_energies_alone_does_not_cost_the_model(name, configuration, frames, tmp_path):
    path, alone = configuration(), []
    for atoms in frames[:3]:
        alone.append(atoms.copy())
        alone[-1].calc = SinglePointCalculator(alone[-1], energy=atoms.get_potential_energy())
    ase.io.write(tmp_path / "alone.extxyz", alone)
    model = train(TrainingConfig.from_yaml(path, ["report=true", f"data.{name}={tmp_path / 'alone.extxyz'}"]))
    assert set(read_card(model)["card"][f"{name} errors"]) == {"energy", "energy_per_atom"}
    assert "Worst frames" in (tmp_path / "run" / "report.html").read_text()


def test_what_fails_after_the_training_does_not_cost_the_model(configuration, tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("ase_nbody.training.run.write_report", fail)
    monkeypatch.setattr("ase_nbody.training.run.evaluate_model", fail)
    path = configuration(epochs=1, output="o[/run]")
    assert train(TrainingConfig.from_yaml(path, [f"data.test={tmp_path / 'data.extxyz'}", "report=true"])).is_file()
    out = capsys.readouterr().out
    assert "there is no report: MemoryError" in out
    assert "no errors on the test frames: MemoryError" in out
    assert "o[/run]" in out


def test_species_of_test_data_are_checked_before_the_training(configuration, frames, tmp_path):
    atoms = frames[0].copy()
    atoms.symbols[0] = "Au"
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    ase.io.write(tmp_path / "gold.extxyz", atoms)
    with pytest.raises(DataError, match=r"data.test: there are frames with Au"):
        train(TrainingConfig.from_yaml(configuration(), [f"data.test={tmp_path / 'gold.extxyz'}"]))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_overfitted_network_is_not_to_be_trained_for_longer(run, tmp_path):
    """Validation errors fall at the end of any training, because the learning rate does."""
    frames = read_labelled(tmp_path / "data.extxyz")
    network = load_model(run / "model.nbody")
    learnt = predict(network, frames)
    parts = [Part("training", learnt, learnt), Part("validation", frames, learnt)]
    history = [{"epoch": k, "forces mae (meV/Angstrom)": 100.0 - k} for k in range(20)]
    said = " ".join(advice(parts, history))
    assert "more, and more varied, data" in said
    assert "train longer" not in said


def test_numbers_of_frames_are_those_of_the_label_and_of_the_sample(run, tmp_path, monkeypatch):
    network, frames = load_model(run / "model.nbody"), read_labelled(tmp_path / "data.extxyz")
    monkeypatch.setattr("ase_nbody.training.report.LARGEST_SAMPLE", 10)
    write_report(network, {"training": frames}, run / "metrics.csv", tmp_path)
    page, chosen = (tmp_path / "report.html").read_text(), take(frames, evenly_spaced(frames, -(-len(frames) // 10)))
    with_stress = sum(bool(np.isfinite(frame.stress).all()) for frame in chosen)
    assert 0 < with_stress < len(chosen)
    assert f"<td>training</td><td>{with_stress}</td><td>stress</td>" in page
    assert f"Of the {len(frames)} frames of the training set, {len(chosen)} evenly chosen ones are in tables" in page


def test_a_network_that_gives_nan_has_no_report(run, tmp_path, monkeypatch):
    """Its errors were those of all other frames."""
    network, frames = load_model(run / "model.nbody"), read_labelled(tmp_path / "data.extxyz")
    broken = [*frames[:3], dataclasses.replace(frames[3], energy=np.nan), *frames[4:]]
    monkeypatch.setattr("ase_nbody.training.report.predict", lambda network, frames: broken)
    with pytest.raises(DataError, match=r"gives NaN or infinite values for .*data.extxyz, frame 3: look at"):
        write_report(network, {"training": frames}, run / "metrics.csv", tmp_path)


@pytest.mark.parametrize(("last", "falling"), [(50.0, True), (99.0, False)])
def test_advice_to_train_longer(last, falling, run, tmp_path):
    from ase_nbody.training.report import _evaluate

    frames = read_labelled(tmp_path / "data.extxyz")
    parts = [_evaluate(load_model(run / "model.nbody"), "training", frames)]
    history = [{"epoch": k, "forces mae (meV/Angstrom)": 100.0} for k in range(20)]
    history[-1] = {"epoch": 20, "forces mae (meV/Angstrom)": last}
    assert any("train longer" in sentence for sentence in advice(parts, history)) == falling


def test_without_matplotlib_the_model_is_written_and_the_remedy_is_named(configuration, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("ase_nbody.files.page.find_spec", lambda name: None)
    train(TrainingConfig.from_yaml(configuration(), ["report=true", "training.epochs=1"]))
    assert "pip install" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.nbody").is_file()


def test_epochs_and_split_follow_from_the_data(configuration, tmp_path, capsys):
    path = tmp_path / "data.extxyz"
    configuration()
    overrides = [
        f"output={tmp_path / 'alone'}", "training.epochs=1", "training.compile=false", "preset=small", "report=false"
    ]  # fmt: skip
    train(TrainingConfig.from_yaml(path, overrides))
    assert "21 training structures and 3 validation structures" in capsys.readouterr().out
