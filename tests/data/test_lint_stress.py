"""Stresses with a wrong unit, sign or order of their components are found; right ones are never called wrong."""

import dataclasses
import itertools
import json

import ase.build
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.data.lint import frames_with_stress, remarks_by_model
from ase_nbody.data.lint.agreement import remarks, wrong_order
from ase_nbody.data.lint.components import NAMES, Order, most_alike
from ase_nbody.data.lint.similar import COLUMNS, ROWS, similar_pairs
from ase_nbody.data.lint.slopes import slopes
from ase_nbody.data.lint.strain import order_of_components
from ase_nbody.structure import Structure
from ase_nbody.training.said import said_of_stresses

VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
ASE_ORDER = tuple(range(6))
EXCHANGED = (0, 1, 2, 4, 3, 5)  # yz and xz, as in a well-known data set
ORDERS = {
    "yz and xz exchanged": EXCHANGED,
    "xy before xz and yz": (0, 1, 2, 5, 4, 3),
    "row by row": (0, 5, 4, 1, 3, 2),
    "xx and yy exchanged": (1, 0, 2, 3, 4, 5),
    "axes in turn": (1, 2, 0, 4, 5, 3),
}


def reordered(frames, order, signs=(1,) * 6):
    """The frames with stresses whose numbers are the components ``order`` times ``signs``."""
    return [
        dataclasses.replace(frame, stress=(frame.stress[ROWS, COLUMNS][list(order)] * signs)[VOIGT]) for frame in frames
    ]


def scaled(frames, factor):
    return [dataclasses.replace(frame, stress=factor * frame.stress) for frame in frames]


def verdict(frames) -> tuple[str, str]:
    """The severity and the text of the remark on stresses."""
    (remark,) = (remark for remark in remarks(frames) if remark.subject == "stress")
    return remark.severity, remark.text


def copper(strain: np.ndarray, seed: int, shake: float = 0.03) -> LabelledStructure:
    atoms = ase.build.bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    atoms.positions += np.random.default_rng(seed).normal(scale=shake, size=atoms.positions.shape)
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    return LabelledStructure(Structure.from_atoms(atoms), atoms.get_potential_energy(), atoms.get_forces(), stress)


@pytest.fixture(scope="module")
def strained() -> list[LabelledStructure]:
    """Copper under random strains of all kinds."""
    random = np.random.default_rng(3)
    strains = random.normal(scale=0.02, size=(60, 3, 3))
    return [copper(0.5 * (strain + strain.T), seed) for seed, strain in enumerate(strains)]


def test_right_stresses_match_energies_and_answer_their_own_strains(strained):
    severity, text = verdict(strained)
    assert severity == "note"
    assert "Stresses match the energies" in text
    assert "Their components are in ASE's order" in text


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_order_of_the_components_is_named(order, strained):
    severity, text = verdict(reordered(strained, order))
    assert severity == "error"
    assert f"in the order {', '.join(NAMES[component] for component in order)}." in text


@pytest.mark.parametrize("component", range(6))
def test_a_component_of_the_opposite_sign_is_named(component, strained):
    signs = np.where(np.arange(6) == component, -1, 1)
    severity, text = verdict(reordered(strained, ASE_ORDER, signs))
    assert severity == "error"
    assert f"-{NAMES[component]}" in text
    assert text.count("-") == 1
    assert "change the signs of those with a minus" in text


def test_stresses_of_the_opposite_sign_are_not_called_out_of_order():
    """A remark that asks to reorder components that are in order sends the reader the wrong way."""
    reversed_signs = wrong_order(Order(signs=(-1,) * 6), "The strains show that the stresses are")
    assert "the stresses are all of the opposite sign." in reversed_signs.text
    assert "reorder" not in reversed_signs.text
    both = wrong_order(Order(EXCHANGED, (1, 1, 1, 1, -1, 1)), "The strains show that the stresses are").text
    assert "reorder them and change the signs of those with a minus" in both


@pytest.mark.parametrize(
    ("strain", "words"),
    [
        (lambda random: np.zeros((3, 3)), "Cannot tell units, signs and order"),
        (lambda random: np.eye(3) * random.normal(scale=0.02), "Cannot tell the order"),
        (lambda random: np.diag(random.normal(scale=0.02, size=3)), "Cannot tell the order"),
    ],
    ids=["one cell", "volumes", "no shear"],
)
def test_without_strains_of_all_kinds_the_order_is_not_called_right(strain, words, strained):
    random = np.random.default_rng(5)
    frames = [copper(strain(random), seed, shake=0.01) for seed in range(40)]
    for order in (ASE_ORDER, EXCHANGED):
        severity, text = verdict(reordered(frames, order))
        assert severity == "note"
        assert words in text
    silent = [dataclasses.replace(frame, energy=np.nan) for frame in strained]
    assert "Cannot tell their unit" in verdict(silent)[1]


def test_stresses_without_meaning_are_neither_right_nor_wrong(strained):
    random = np.random.default_rng(0)
    noise = [dataclasses.replace(frame, stress=random.normal(scale=0.01, size=6)[VOIGT]) for frame in strained]
    changes = similar_pairs(noise)
    assert order_of_components(changes) is None
    assert not slopes(changes)[1].is_right


def test_molecules_have_no_remark_on_stresses():
    atoms = ase.build.molecule("CH4")
    frame = LabelledStructure(Structure.from_atoms(atoms), 0.0, np.zeros((5, 3)), np.zeros((3, 3)))
    assert all(remark.subject != "stress" for remark in remarks([frame] * 30))
    assert not list(remarks_by_model([frame] * 30, [frame] * 30))


def test_of_all_permutations_an_elastic_tensor_has_the_largest_trace():
    random = np.random.default_rng(1)
    for order in random.permuted(np.tile(np.arange(6), (50, 1)), axis=1):
        root = random.normal(size=(6, 6))
        assert most_alike((root @ root.T + 0.1 * np.eye(6))[order]) == tuple(order)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mlearn_Si", "mlearn_Li", "mlearn_Mo"])
def test_planted_errors_are_found_in_published_data(name, reference_data):
    frames = read_labelled(reference_data / name / "train.extxyz")
    severity, text = verdict(frames)
    assert severity == "note"
    assert "Cannot tell" not in text
    for factor, words in (
        (1 / units.GPa, "GPa with ASE's sign"),
        (10 / units.GPa, "kbar with ASE's sign"),
        (-1.0, "eV/Angstrom^3 with the opposite sign"),
        (-10 / units.GPa, "kbar with the opposite sign"),
    ):
        severity, text = verdict(scaled(frames, factor))
        assert severity == "error"
        assert words in text
    for order in ORDERS.values():
        severity, text = verdict(reordered(frames, order))
        assert severity == "error"
        assert f"in the order {', '.join(NAMES[component] for component in order)}." in text


@pytest.mark.data
@pytest.mark.parametrize("name", ["mlearn_Si", "mlearn_Mo"])
def test_any_permutation_is_found_in_published_data(name, reference_data):
    changes = similar_pairs(read_labelled(reference_data / name / "train.extxyz"))
    assert order_of_components(changes) == Order()
    for order in list(itertools.permutations(range(6)))[5::13]:
        found = order_of_components(dataclasses.replace(changes, stress=changes.stress[:, list(order)]))
        assert found is not None
        assert found.holds == order


@pytest.mark.data
def test_halves_of_published_data_are_not_called_wrong(reference_data):
    for name in ("mlearn_Si", "mlearn_Li", "mlearn_Mo", "NbMoTaW"):
        frames = read_labelled(reference_data / name / "test.extxyz")
        if name != "NbMoTaW":
            frames += read_labelled(reference_data / name / "train.extxyz")
        for seed in range(4):
            chosen = np.random.default_rng(seed).permutation(len(frames))[: len(frames) // 2]
            assert all(remark.severity == "note" for remark in remarks([frames[index] for index in chosen]))


def imperfect(frames, size=0.1):
    """What a model of these frames could predict: their stresses with an error."""
    random = np.random.default_rng(7)
    typical = np.std([frame.stress for frame in frames])
    noise = random.normal(scale=size * typical, size=(len(frames), 6))[:, VOIGT]
    return [dataclasses.replace(frame, stress=frame.stress + error) for frame, error in zip(frames, noise, strict=True)]


def by_model(frames, predicted):
    (remark,) = remarks_by_model(frames, predicted)
    return remark.severity, remark.text


def test_a_model_finds_the_order_signs_and_units(strained):
    predicted = imperfect(strained)
    assert by_model(strained, predicted) == (
        "note",
        "The model's stresses agree with the labels component by component.",
    )
    for order in ORDERS.values():
        severity, text = by_model(reordered(strained, order), predicted)
        assert severity == "error"
        assert f"in the order {', '.join(NAMES[component] for component in order)}." in text
    severity, text = by_model(reordered(strained, ASE_ORDER, (1, 1, 1, 1, -1, 1)), predicted)
    assert (severity, "xx, yy, zz, yz, -xz, xy" in text) == ("error", True)
    for factor, words in ((1 / units.GPa, "GPa with ASE's sign"), (-1.0, "eV/Angstrom^3 with the opposite sign")):
        severity, text = by_model(scaled(strained, factor), predicted)
        assert (severity, words in text) == ("error", True)


def test_a_model_that_knows_nothing_says_so(strained):
    random = np.random.default_rng(2)
    untrained = [dataclasses.replace(frame, stress=random.normal(size=6)[VOIGT]) for frame in strained]
    assert "cannot tell" in by_model(strained, untrained)[1]
    assert "only 5 frames" in by_model(strained[:5], strained[:5])[1]
    assert len(frames_with_stress(strained * 8)) <= 200


def only_isotropic(frames):
    """The same frames without strains and energies, so that only a model can tell."""
    cell = frames[0].structure
    return [dataclasses.replace(frame, energy=np.nan, structure=cell) for frame in frames]


def noise_that_follows(frames, factors):
    """Stresses of a model that learnt nothing: some components happen to be correlated with the labels."""
    predicted = np.random.default_rng(4).normal(scale=0.3, size=(len(frames), 6))
    labels = np.array([frame.stress[ROWS, COLUMNS] for frame in frames])
    predicted += np.array(factors) * labels / labels.std(axis=0)
    scale = 1.5e-3 * labels.std()
    return [dataclasses.replace(frame, stress=scale * row[VOIGT]) for frame, row in zip(frames, predicted, strict=True)]


@pytest.mark.parametrize(
    "factors", [(0, 0, 0, -1, -1, -1), (1, 1, 1, -1, -1, -1), (0, 0, 0, 1, 1, 1), (1, 1, 1, 1, -1, 0), (1,) * 6]
)
def test_an_untrained_model_never_calls_right_stresses_wrong(factors, strained):
    for frames in (strained, only_isotropic(strained)):
        severity, text = by_model(frames, noise_that_follows(frames, factors))
        assert severity == "note"
        assert text.startswith("The model cannot tell")


def test_energies_and_strains_overrule_a_model(strained):
    for predicted in (
        reordered(strained, EXCHANGED),
        reordered(strained, ASE_ORDER, (1, 1, 1, 1, -1, 1)),
        scaled(strained, -1.0),
        scaled(strained, units.GPa),
    ):
        severity, text = by_model(strained, predicted)
        assert severity == "note"
        assert "energies and strains say that the labels are right" in text
        frames = only_isotropic(strained)  # nothing else tells
        assert by_model(frames, predicted)[0] == "error"


def test_the_training_report_says_what_the_model_finds(strained):
    from ase_nbody.training.compared import Part
    from ase_nbody.training.report import advice

    for frames, expected in ((strained, False), (reordered(strained, EXCHANGED), True)):
        part = Part("training", frames, imperfect(strained))
        assert any("yz" in sentence for sentence in advice([part], [])) == expected


@pytest.mark.data
def test_the_command_compares_stresses_with_a_model(reference_data, nbody, tmp_path):
    frames = read_labelled(reference_data / "mlearn_Si" / "train.extxyz", "160:213:4")
    for order, expected in ((ASE_ORDER, 0), (EXCHANGED, 1)):
        images = []
        for frame in reordered(frames, order):
            atoms = frame.structure.to_atoms()
            results = {"energy": frame.energy, "forces": frame.forces, "stress": frame.stress[ROWS, COLUMNS]}
            atoms.calc = SinglePointCalculator(atoms, **results)
            images.append(atoms)
        ase.io.write(tmp_path / "data.extxyz", images)
        code, out, _ = nbody("lint", tmp_path / "data.extxyz", "--model", "silicon", "--json")
        said = [remark["text"] for remark in json.loads(out) if "model's stresses" in remark["text"]]
        assert code == expected
        assert len(said) == 1
        assert ("yz, xy" in said[0] or "xz, yz" in said[0]) == bool(expected)


def test_a_training_says_that_stresses_are_in_another_unit(strained, monkeypatch):
    """Only the report told it."""
    wrong, predicted = scaled(strained, 1.0 / units.GPa), dict(zip(map(id, strained), imperfect(strained), strict=True))
    own = {id(frame): predicted[id(right)] for frame, right in zip(wrong, strained, strict=True)}
    for frames, answers, said in ((wrong, own, ["GPa"]), (strained, predicted, [])):
        monkeypatch.setattr(
            "ase_nbody.training.said.predict", lambda _, some, answers=answers: [answers[id(frame)] for frame in some]
        )
        found = list(said_of_stresses(None, {"training": frames[10:], "validation": frames[:10]}))
        assert len(found) == len(said)
        assert all(unit in sentence for unit, sentence in zip(said, found, strict=True))
