"""``nbody info``: what it prints about a model file for people and for programs, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from ase_nbody.cli import app
from ase_nbody.files.archive import read_card, save_model
from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.network.coverage import Coverage

CARD = {
    "theory": "none, random weights",
    "settings": {"seed": 1, "rates": [0.1, 2.0]},
    "test errors": {"forces": {"unit": "meV/Angstrom", "mae": 31.25, "rmse": 40.5}},
    "trap": "\x1b[2J [bold]loud[/bold] [/]",
}


@pytest.fixture
def model(tmp_path, network):
    return str(save_model(network, tmp_path / "model.nbody", CARD))


def shown(*arguments) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["info", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_for_people(model, network):
    out = shown(model)
    weights = sum(weight.numel() for weight in network.parameters())
    words = (
        "H, C, O, Na, Cl, Cu",
        f"{weights:,}",
        read_card(model)["checksum"],
        "none, random weights",
        "isolated atom",
    )
    for word in (
        *words,
        "31.25",
        "40.5",
        "meV/Angstrom",
        "7.5 Angstrom",
        "seed: 1 ",
        "rates: 0.1, 2 ",
        "body order",
        "heavy",
    ):
        assert word in out


def test_pairs_of_elements_that_the_data_lack(tmp_path, make_network):
    coverage = Coverage(bonded={"H": ("O",), "O": ("H2",)}, densities={}, radius=4.0, contacts=("H-H", "H-O"))
    for known, lines in (
        (coverage, {"pairs never bonded": "H-H, O-O", "pairs never in contact": "O-O"}),
        (coverage.model_copy(update={"contacts": None}), {"pairs never bonded": "H-H, O-O"}),
    ):
        out = shown(str(save_model(make_network(coverage=known), tmp_path / "covered.nbody")))
        cells = [[cell.strip() for cell in line.split("│")[1:3]] for line in out.splitlines() if "pairs never" in line]
        assert dict(cells) == lines


def test_forms_of_the_levels(tmp_path, make_form, make_network):
    """Options that one level alone has are shown, and the types of the states."""
    level = make_form("everything").config.levels[1].model_dump()
    mixed = make_network(levels=({"radius": 4.0, "channels": 3, "hidden": 4}, level))
    out = shown(str(save_model(mixed, tmp_path / "mixed.nbody")))
    for words in ("children gate", "parity", "both", "first_order clebsch_gordan", "4, 2, 1", "3x0 + 3x1 + 3x2"):
        assert words in out
    assert str(mixed.taus[-1]) in out


def test_members_are_a_short_table_and_long_entries_a_count(tmp_path, network):
    """A member's entry holds its settings and all its errors, some 25 lines if it were a cell."""
    errors = {"energy": {"unit": "meV", "mae": 0.377, "rmse": 0.7}, "forces_H": {"unit": "meV/Angstrom", "mae": 1.69}}
    members = [
        {"checksum": digit * 64, "validation errors": errors, "training": {"epochs": 160}, "note": "\x1b[2J"}
        for digit in "ab"
    ]
    card = {"members": members, "example": {"numbers": [1, 1], "positions": [[0.0, 0.5, 1.0]] * 9}}
    out = shown(str(save_model(network, tmp_path / "model.nbody", card)))
    assert "energy (meV)" in out
    assert "epochs" not in out
    assert "forces H" not in out
    rows = [line for line in out.splitlines() if "0.377" in line]
    assert [row.split("│")[2].strip() for row in rows] == ["a" * 16 + "...", "b" * 16 + "..."]
    assert "positions: (9 entries)" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "members", [[{"checksum": 1}], [{"checksum": "a", "validation errors": [3]}, {"checksum": None}], ["a"], {"a": {}}]
)
def test_members_of_another_form_are_shown_too(members, tmp_path, network):
    assert "members" in shown(str(save_model(network, tmp_path / "model.nbody", {"members": members})))


@pytest.mark.parametrize("said", ["two", ["PBE"], None, {"PBE": "text"}])
def test_heads_of_another_form_are_shown_too(said, tmp_path, network):
    out = shown(str(save_model(network, tmp_path / "model.nbody", {"heads": said})))
    assert any("heads" in line and str(said)[-4:].strip("'}]") in line for line in out.splitlines())


def test_a_card_does_not_control_the_terminal(model):
    out = shown(model)
    assert "\x1b" not in out
    assert "\\x1b[2J [bold]loud[/bold] [/]" in out


def test_for_programs(model):
    assert json.loads(shown(model, "--json")) == read_card(model)


def test_a_damaged_file_is_refused(model):
    with open(model, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ModelFileError, match="damaged"):
        shown(model)
