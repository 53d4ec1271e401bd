"""Checkpoints of a training: whole, free of code, and refused in words when they are damaged."""

import io
import os

import numpy as np
import pytest
import torch

from ase_nbody.training.callbacks import CheckpointError, WholeCheckpoints

STATE = {"epoch": 3, "state_dict": {"weight": torch.arange(900.0).reshape(30, 30)}, "rows": [{"mae": 1.5}]}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint(STATE, path)
    return path


def same(loaded) -> bool:
    weights = loaded["state_dict"]["weight"], STATE["state_dict"]["weight"]
    return torch.equal(*weights) and all(loaded[key] == STATE[key] for key in ("epoch", "rows"))


def test_round_trip(checkpoint):
    assert same(WholeCheckpoints().load_checkpoint(checkpoint))
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_a_write_that_fails_leaves_the_old_one(checkpoint, monkeypatch):
    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        WholeCheckpoints().save_checkpoint({}, checkpoint)
    assert same(WholeCheckpoints().load_checkpoint(checkpoint))
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_an_interrupt_while_writing_stays_one(checkpoint, monkeypatch):
    """Torch's archive, closed half written, fails with an error of its own."""

    class Interrupted(io.BytesIO):
        def write(self, buffer):
            if self.tell():
                raise KeyboardInterrupt
            return super().write(buffer)

    monkeypatch.setattr(io, "BytesIO", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({}, checkpoint)
    monkeypatch.undo()
    assert same(WholeCheckpoints().load_checkpoint(checkpoint))


def test_damage_is_noticed(checkpoint):
    """A flipped bit or a missing end: refused, or (dates, unused fields of the zip) without meaning."""
    payload, draw = checkpoint.read_bytes(), np.random.default_rng(0)
    refused = 0
    for case in range(300):
        damaged, place = bytearray(payload), int(draw.integers(len(payload)))
        if case % 3:
            damaged[place] ^= 1 << int(draw.integers(8))
        else:
            del damaged[place:]
        checkpoint.write_bytes(damaged)
        try:
            assert same(WholeCheckpoints().load_checkpoint(checkpoint)), place
        except CheckpointError:
            refused += 1
    assert refused > 200


class Harmful:
    """What a pickle runs when it is read."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("weights_only", [None, False, True])
def test_code_is_not_run_whatever_is_asked_for(weights_only, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    torch.save({"epoch": Harmful()}, checkpoint)
    with pytest.raises(CheckpointError, match="it holds more than tensors and plain data"):
        WholeCheckpoints().load_checkpoint(checkpoint, weights_only=weights_only)
    assert not os.path.exists("harm")
    torch.load(checkpoint, weights_only=False)
    assert os.path.exists("harm")
