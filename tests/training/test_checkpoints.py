"""Checkpoints are written completely or not at all, hold no code, and are refused with a sentence if damaged."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch

from ase_nbody.training.callbacks import AtomicCheckpoints, CheckpointError
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.run import train

STATE = {
    "epoch": 3,
    "global_step": 12,
    "state_dict": {"weight": torch.arange(900.0).reshape(30, 30)},
    "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": 4}}}},
    "callbacks": {},
    "optimizer_states": [],
    "lr_schedulers": [],
    "rows": [{"mae": 1.5}],
}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint(STATE, path)
    return path


def same(loaded) -> bool:
    weights = loaded["state_dict"]["weight"], STATE["state_dict"]["weight"]
    return torch.equal(*weights) and all(loaded[key] == STATE[key] for key in ("epoch", "rows"))


def compressed(checkpoint):
    """Torch would read it, and take all of the memory that it claims."""
    with zipfile.ZipFile(checkpoint) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def repeated(checkpoint):
    """Many names for one place in the archive."""
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.filelist += 50 * archive.filelist
        archive._didModify = True


@pytest.mark.parametrize("forge", [compressed, repeated])
def test_an_archive_that_holds_more_than_its_size_is_refused(forge, checkpoint):
    forge(checkpoint)
    with pytest.raises(CheckpointError, match=r"it unpacks to more than its \d+ bytes, so torch has not written it"):
        AtomicCheckpoints().load_checkpoint(checkpoint)


def test_round_trip(checkpoint):
    assert same(AtomicCheckpoints().load_checkpoint(checkpoint))
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_a_failed_write_leaves_the_old_checkpoint(checkpoint, monkeypatch):
    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpoints().save_checkpoint({}, checkpoint)
    assert same(AtomicCheckpoints().load_checkpoint(checkpoint))
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_an_interrupt_during_a_write_stays_an_interrupt(checkpoint, monkeypatch):
    """When torch closes its half-written archive, it raises an error of its own, which would hide the interrupt."""

    class Interrupted(io.BytesIO):
        def write(self, buffer):
            if self.tell():
                raise KeyboardInterrupt
            return super().write(buffer)

    monkeypatch.setattr(io, "BytesIO", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpoints().save_checkpoint({}, checkpoint)
    monkeypatch.undo()
    assert same(AtomicCheckpoints().load_checkpoint(checkpoint))


def test_damage_is_refused_or_harmless(checkpoint):
    """A flipped bit or a missing end is refused, unless the bit has no effect (dates and unused fields of the zip)."""
    payload, draw = checkpoint.read_bytes(), np.random.default_rng(0)
    refused = 0
    for case in range(300):
        damaged, position = bytearray(payload), int(draw.integers(len(payload)))
        if case % 3:
            damaged[position] ^= 1 << int(draw.integers(8))
        else:
            del damaged[position:]
        checkpoint.write_bytes(damaged)
        try:
            assert same(AtomicCheckpoints().load_checkpoint(checkpoint)), position
        except CheckpointError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1], "it holds a list and no checkpoint of a training"),
        ({}, "the entry 'epoch' is missing"),
        (STATE | {"epoch": "3"}, "the entry 'epoch' has the type str, not int"),
        (STATE | {"epoch": 10**9}, "it is of epoch 1000000000, but its loops have begun 4"),
        (STATE | {"callbacks": [1]}, "the entry 'callbacks' has the type list"),
        (STATE | {"callbacks": {"a": 1}}, "states of its callbacks"),
        (STATE | {"digests": [1]}, "the entry 'digests' has the type list"),
        (
            STATE | {"loops": {"fit_loop": {"epoch_loop.scheduler_progress": "x"}}},
            "the states of its loops are no mappings",
        ),
        (
            STATE
            | {"batches_done": 7, "loops": {"fit_loop": {"epoch_loop.batch_progress": {"current": {"ready": 3}}}}},
            "7 batches of its epoch are done, but 3 have begun",
        ),
        *(
            ({key: value for key, value in STATE.items() if key != name}, f"the entry '{name}' is missing")
            for name in ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "global_step")
        ),
    ],
)
def test_other_contents_are_refused_with_a_sentence(content, reason, checkpoint):
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match=f"is not a checkpoint that can be resumed from: .*{reason}"):
        AtomicCheckpoints().load_checkpoint(checkpoint)


def forged(checkpoint, change):
    """Change entries of a checkpoint and write it as torch does, which makes the checksums of the archive fit."""
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.__setitem__("global_step", 10**12),
        lambda content: content["state_dict"]["weight"].mul_(2.0),
        lambda content: content["rows"].clear(),
        lambda content: None,
    ],
    ids=["step", "weights", "rows", "nothing"],
)
def test_a_changed_checkpoint_does_not_go_on_as_another_training(change, checkpoint):
    """A negative epoch, weights or an optimiser of another run were gone on with in silence."""
    forged(checkpoint, change)
    with pytest.raises(CheckpointError, match="does not have the checksum that it was written with"):
        AtomicCheckpoints().load_checkpoint(checkpoint)


def test_contents_under_the_checksum_of_others_are_refused(checkpoint):
    with zipfile.ZipFile(checkpoint) as archive:
        checksum = archive.comment
    forged(checkpoint, lambda content: content["state_dict"]["weight"].mul_(2.0))
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.comment = checksum
    with pytest.raises(CheckpointError, match="does not have the checksum that it was written with"):
        AtomicCheckpoints().load_checkpoint(checkpoint)


def test_a_checkpoint_of_an_earlier_release_has_no_checksum(checkpoint):
    torch.save(STATE, checkpoint)
    assert same(AtomicCheckpoints().load_checkpoint(checkpoint))


def test_a_checkpoint_of_a_later_release_is_refused(checkpoint):
    torch.save(STATE | {"format": 3}, checkpoint)
    with pytest.raises(CheckpointError, match="it has format 3, which a later release wrote"):
        AtomicCheckpoints().load_checkpoint(checkpoint)


class Harmful:
    """An object whose pickle makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("weights_only", [None, False, True])
def test_code_is_never_run_whatever_weights_only_says(weights_only, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    torch.save({"epoch": Harmful()}, checkpoint)
    with pytest.raises(CheckpointError, match="it holds more than tensors and plain data"):
        AtomicCheckpoints().load_checkpoint(checkpoint, weights_only=weights_only)
    assert not os.path.exists("harm")
    torch.load(checkpoint, weights_only=False)
    assert os.path.exists("harm")


def spoiled_callback(checkpoint, entry):
    """Remove an entry of the state of whichever callback has it."""
    next(state for state in checkpoint["callbacks"].values() if entry in state).pop(entry)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda checkpoint: checkpoint["watch"].pop("high"),
        lambda checkpoint: spoiled_callback(checkpoint, "best_model_score"),
        lambda checkpoint: checkpoint["current_model_state"].popitem(),
        lambda checkpoint: checkpoint["optimizer_states"].__setitem__(0, "x"),
        lambda checkpoint: checkpoint["lr_schedulers"].__setitem__(0, {"base_lrs": "x"}),
        lambda checkpoint: checkpoint.__setitem__("watch", {"losses": 1, "high": 0}),
        lambda checkpoint: checkpoint.__setitem__("errors", 1),
    ],
    ids=["watch", "callback", "averages", "optimiser", "schedule", "losses", "errors"],
)
def test_entries_within_that_do_not_fit_are_refused_before_the_first_step(spoil, configuration, tmp_path):
    config = TrainingConfig.from_yaml(configuration(epochs=2))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    train(config)
    content = torch.load(path, weights_only=True)
    spoil(content)
    del content["format"]  # as in earlier releases, which wrote no checksum
    torch.save(content, path)
    before = path.read_bytes()
    longer = TrainingConfig.from_yaml(configuration(epochs=3))
    with pytest.raises(CheckpointError, match=r"last\.ckpt .*(cannot be resumed from|can be resumed from|is damaged)"):
        train(longer, resume=True)
    assert path.read_bytes() == before
