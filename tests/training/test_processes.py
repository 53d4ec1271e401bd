"""Two processes under torchrun train as one process does, although their shares of a batch differ in size."""

import csv
import itertools
import os
import subprocess
import sys

import pytest
import torch
import yaml

from ase_nbody import load_model
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.processes import Processes, Share
from ase_nbody.training.run import train


def test_the_shares_of_all_processes_make_up_the_batches():
    batches = torch.utils.data.BatchSampler(range(11), 4, drop_last=False)
    shares = [list(Share(batches, Processes(rank, 3, 3))) for rank in range(3)]
    assert [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == list(batches)
    assert shares[0] == [[0, 3], [4, 7], [8]]


@pytest.mark.parametrize("values", ["3 2 2", "0 0 0", "0 2 3", "0 1 0", "\N{SUPERSCRIPT TWO} 4 4"])
def test_variables_that_do_not_fit_together_are_left_over(values, monkeypatch):
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    for name, value in zip(names, values.split(), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "left over")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert Processes.launched() == Processes()
    for name, value in zip(names, ["1", "4", "2"], strict=True):
        monkeypatch.setenv(name, value)
    assert Processes.launched() == Processes(1, 4, 2)


def test_ranks_that_are_left_over_neither_end_a_training_nor_silence_its_curves(configuration, tmp_path):
    """Lightning reads them when it is imported: it fails at a word, and leaves the curves to another process."""
    command = [sys.executable, "-m", "ase_nbody.cli", "train", configuration(epochs=1)]
    foreign = {"RANK": "gold", "SLURM_PROCID": "1"}
    result = subprocess.run(command, env=os.environ | foreign, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_two_processes_equal_one(configuration, tmp_path):
    """Weights agree to round-off in float64, with batches of three structures and a last validation batch of one."""
    options = {"batch_size": 3, "epochs": 2, "dtype": "float64", "gradient_clip": 0.5, "loss": "mse", "patience": 5}
    results = []
    for name in ("one", "two"):
        path = configuration(name=f"{name}.yaml", output=name, **options)
        content = yaml.safe_load(path.read_text())
        content["data"]["validation"] = 7
        path.write_text(yaml.safe_dump(content))
        if name == "one":
            train(TrainingConfig.from_yaml(path))
        else:
            command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ase_nbody.cli"]
            result = subprocess.run(
                [sys.executable, "-m", *command, "train", str(path)], capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
            assert result.stdout.count("epoch    2/2") == 1, "only the first process prints"
            assert "Warning" not in result.stderr, result.stderr
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        results.append((load_model(tmp_path / name / "model.nbody").state_dict(), rows))
    (weights, rows), (weights_of_two, rows_of_two) = results
    for row, row_of_two in zip(rows, rows_of_two, strict=True):
        assert row_of_two == pytest.approx(row, rel=1e-9)
    for name, weight in weights.items():
        torch.testing.assert_close(weights_of_two[name], weight, rtol=1e-8, atol=1e-10)
