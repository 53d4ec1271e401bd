"""The time left is estimated from the epochs since the last compilation, not from the minutes that it took."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from ase_nbody.training import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless a test sets it."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def trainer_after(epochs: float, *, batches: int = 10):
    """What the clock reads of lightning's trainer: 20 epochs of ten batches, of which some are done."""
    done = SimpleNamespace(processed=round(epochs % 1 * batches))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=done)))
    return SimpleNamespace(current_epoch=int(epochs), max_epochs=20, num_training_batches=batches, fit_loop=loop)


@pytest.mark.parametrize("faster", [False, True])
def test_a_compilation_does_not_count(faster, clock, tmp_path):
    text = io.StringIO()
    told = progress.Progress(Console(file=text, width=200), tmp_path / "metrics.csv")
    module = SimpleNamespace(compiled=SimpleNamespace(around=[], may_speed_up=faster))
    told.on_train_start(trainer_after(0), module)
    with module.compiled.around[0]():
        clock.seconds += 600.0
    assert "Compiling the training step" in text.getvalue()
    assert "Compiled in 600 s" in text.getvalue()

    clock.seconds += 3.0
    told.on_train_batch_end(trainer_after(0.1), module, None, None, 0)
    assert "min left" not in text.getvalue()  # too early to say
    clock.seconds += 57.0 + 60.0  # an epoch in two minutes, and the last words are more than a minute ago
    told.on_train_batch_end(trainer_after(1), module, None, None, -1)
    assert text.getvalue().rstrip().endswith("(at most 38 min left)" if faster else "(38 min left)")
