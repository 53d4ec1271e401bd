"""SIGTERM, Ctrl-C and SIGHUP end a training within a batch; a resumed run has the weights of an unbroken one."""

import os
import signal
import subprocess
import sys
import textwrap

import ase.io
import pytest
import torch

from ase_nbody import load_model
from ase_nbody.training import Terminated
from ase_nbody.training.compiled_step import CompiledPotential
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.run import train

OPTIONS = {"epochs": 2, "patience": 9, "second_stage": {"start": 0.5, "energy_weight": 5.0}}  # five batches an epoch


def run(path, **options):
    return train(TrainingConfig.from_yaml(path), **options)


def same(path, other):
    first, second = load_model(path).state_dict(), load_model(other).state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Ctrl-C interrupts, also where the tests run as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)  # lightning ignores it after a second one


@pytest.fixture
def terminate(monkeypatch):
    """A function that lets a signal arrive at the beginning of one step, and lists the steps that are made."""
    steps = []

    def at(stage, epoch, batch, number=signal.SIGTERM):
        original = getattr(NBodyTraining, stage)

        def step(self, data, index):
            steps.append((stage, self.current_epoch, index))
            if (self.current_epoch, index) == (epoch, batch):
                os.kill(os.getpid(), number)
            return original(self, data, index)

        monkeypatch.setattr(NBodyTraining, stage, step)
        return steps

    return at


@pytest.mark.parametrize(
    ("stage", "epoch", "batch"),
    [
        ("training_step", 0, 0),
        ("training_step", 1, 2),
        ("training_step", 1, 4),  # the last one, before the validation
        ("validation_step", 0, 0),
        ("validation_step", 1, 0),  # of the last epoch
    ],
)
def test_a_terminated_run_resumes_bit_for_bit(stage, epoch, batch, configuration, tmp_path, monkeypatch, terminate):
    before = signal.getsignal(signal.SIGTERM)
    unbroken = run(configuration(name="unbroken.yaml", output="unbroken", **OPTIONS))
    path = configuration(**OPTIONS)
    steps = terminate(stage, epoch, batch)
    with pytest.raises(Terminated) as end:
        run(path)
    assert end.value.code == 143
    assert steps[-1] == (stage, epoch, batch), "it went on"
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert same(run(path, resume=True), unbroken)
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("run", "unbroken")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(("stage", "batch"), [("training_step", 2), ("training_step", 4), ("validation_step", 0)])
def test_a_run_that_ctrl_c_ended_resumes_bit_for_bit(stage, batch, configuration, monkeypatch, terminate, capsys):
    unbroken = run(configuration(name="unbroken.yaml", output="unbroken", **OPTIONS))
    path = configuration(**OPTIONS)
    steps = terminate(stage, 1, batch, signal.SIGINT)
    with pytest.raises(Terminated) as end:
        run(path)
    assert end.value.code == 130
    assert steps[-1] == (stage, 1, batch), "it went on"
    assert "Ended by Ctrl-C in epoch 2: --resume continues from here." in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert same(run(path, resume=True), unbroken)


def test_a_second_ctrl_c_ends_the_training_at_once(configuration, monkeypatch):
    def twice(self, batch, index):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    path = configuration()
    monkeypatch.setattr(NBodyTraining, "training_step", twice)
    with pytest.raises(SystemExit):
        run(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_program_that_handles_a_signal_itself_goes_on_doing_so(number, configuration, terminate):
    received, before = [], signal.signal(number, lambda *arguments: received.append(arguments))
    try:
        terminate("training_step", 0, 1, number)
        run(configuration(epochs=1))
        assert len(received) == 1
    finally:
        signal.signal(number, before)


def test_nohup_goes_on_ignoring_that_the_terminal_has_closed(configuration, terminate):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminate("training_step", 0, 1, signal.SIGHUP)
        assert run(configuration(epochs=1)).is_file()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_may_be_terminated_twice_and_diverge_in_between(configuration, monkeypatch, terminate, capsys):
    """The state to return to is that of the epoch's beginning, before the run was ended."""
    options = {**OPTIONS, "epochs": 3}
    original = NBodyTraining.training_step

    def spoiling(self, batch, index):
        result = original(self, batch, index)
        return result | {"diverged": True} if (self.current_epoch, index) == (1, 3) else result

    monkeypatch.setattr(NBodyTraining, "training_step", spoiling)
    unbroken = run(configuration(name="unbroken.yaml", output="unbroken", **options))
    path = configuration(**options)
    for resume, place in ((False, (0, 3)), (True, (1, 1))):
        with monkeypatch.context():
            terminate("training_step", *place)
            with pytest.raises(Terminated):
                run(path, resume=resume)
    capsys.readouterr()
    assert same(run(path, resume=True), unbroken)
    assert "diverged in epoch 2" in capsys.readouterr().out


def test_tables_made_on_demand_by_workers_are_those_of_the_right_batches(configuration, monkeypatch, terminate):
    path = configuration(epochs=2)
    unbroken = run(configuration(name="unbroken.yaml", output="unbroken", epochs=2))
    terminate("training_step", 1, 1)
    with pytest.raises(Terminated):
        run(path)
    monkeypatch.undo()
    config = TrainingConfig.from_yaml(path, ["data.workers=1", "data.memory=0"])
    assert same(train(config, resume=True), unbroken)


@pytest.mark.parametrize("patience", [2, 3])  # in the middle of an epoch of three batches, and in its last one
def test_a_compilation_is_broken_off(patience, configuration, frames, tmp_path, monkeypatch):
    """Compiling takes longer than a scheduler waits. It changes nothing, so SIGTERM need not wait for its end."""

    def terminated(self, tables, *geometry, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    path, eager = configuration(compile=True), configuration(name="eager.yaml", output="eager")
    ase.io.write(tmp_path / "data.extxyz", frames[:16])  # crystals: all batches have one shape
    monkeypatch.setattr(CompiledPotential.__init__, "__kwdefaults__", {"patience": patience, "most": 8})
    monkeypatch.setattr(CompiledPotential, "_compile", terminated)
    with pytest.raises(Terminated):
        run(path)
    monkeypatch.setattr(CompiledPotential, "_compile", lambda *arguments, **options: 1 / 0)
    monkeypatch.setattr("ase_nbody.runtime.fallback.Fallback.take", lambda self, error: None)
    assert same(run(path, resume=True), run(eager))
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "eager" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "SIGHUP")]
)
def test_the_command_ends_with_the_code_of_the_signal(number, name, configuration, tmp_path):
    """A real process and its worker are ended in the middle of an epoch, as batch systems and terminals do."""
    path = configuration(epochs=2)
    script = tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            import sys

            signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
            from ase_nbody.cli import main
            from ase_nbody.training.module import NBodyTraining

            step = NBodyTraining.training_step

            def waiting(self, batch, index):
                if (self.current_epoch, index) == (1, 2):
                    print("kill me", flush=True)
                    sys.stdin.readline()
                return step(self, batch, index)

            NBodyTraining.training_step = waiting
            main()
            """
        )
    )
    command = [sys.executable, str(script), "train", str(path), "--threads", "1", "data.workers=1", "data.memory=0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert any(line == "kill me\n" for line in process.stdout)
        os.killpg(process.pid, number)
        out, err = process.communicate("go on\n", timeout=600)
    assert process.returncode == 128 + number, err
    assert f"Ended by {name} in epoch 2: --resume continues from here." in out
    assert err.strip() == ("interrupted" if number == signal.SIGINT else "")
    assert same(run(path, resume=True), run(configuration(name="unbroken.yaml", output="unbroken", epochs=2)))


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1"},
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/none", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "2"},
        {"TORCHELASTIC_RUN_ID": "left over"},
        {"TORCHELASTIC_RUN_ID": "left over", "RANK": "0", "WORLD_SIZE": "2"},
    ],
    ids=["slurm", "lsf", "torchelastic", "half torchelastic"],
)
def test_no_cluster_is_found_that_is_not_meant(variables, configuration, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(configuration(epochs=1)).is_file()
