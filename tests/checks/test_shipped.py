"""Every shipped model passes ``nbody check``, with short runs."""

import json
import sys
from functools import partial

import ase
import ase.io
import pytest
from ase.build import bulk, molecule

from ase_nbody.cli import main
from ase_nbody.files.archive import read_card, shipped_models


def example(name: str) -> ase.Atoms:
    """The example structure in the model file."""
    return ase.Atoms(**read_card(name)["card"]["example"])


STRUCTURES = {
    **{name: partial(example, name) for name in ("3bpa", "acac", "aspirin", "malonaldehyde")},
    **{name: partial(example, name) for name in ("organic", "organic-small")},
    "NbMoTaW": lambda: bulk("W", "bcc", a=3.18),
    "ethanol": lambda: molecule("CH3CH2OH"),
    "lithium": lambda: bulk("Li", "bcc", a=3.44),
    "molybdenum": lambda: bulk("Mo", "bcc", a=3.17),
    "silicon": lambda: bulk("Si", "diamond", a=5.43),
}


# Checks that a model fails until it is trained anew (docs/check.md).
EXPECTED = {"aspirin": {"random starts"}}


def test_there_is_a_structure_for_every_shipped_model():
    assert set(STRUCTURES) == set(shipped_models())


# These take minutes each: dimers of all pairs of thirteen elements, and committees on larger molecules.
LONG = {"3bpa", "acac", "aspirin", "malonaldehyde", "organic", "organic-small"}


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in STRUCTURES]
)
def test_shipped_models_pass(model, tmp_path, monkeypatch, capsys):
    ase.io.write(tmp_path / "structure.extxyz", STRUCTURES[model]())
    arguments = ["check", model, str(tmp_path / "structure.extxyz"), "--no-compile", "--steps", "200", "--json"]
    monkeypatch.setattr(sys, "argv", ["nbody", *arguments])
    with pytest.raises(SystemExit):
        main()
    rows = json.loads(capsys.readouterr().out)["findings"]
    failed = [
        f"{row['check']}: {row['measured']}: {row['value']} ({row['note']})"
        for row in rows
        if row["outcome"] == "failed" and row["check"] not in EXPECTED.get(model, ())
    ]
    assert not failed, "\n".join(failed)
    assert {row["check"] for row in rows if row["outcome"] == "failed"} == EXPECTED.get(model, set()), "mended: say so"
    assert sum(row["outcome"] == "passed" for row in rows) > 20
