"""Memory and disk really run out, in a process with a limit; and commands are interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
import yaml

LIMITED = """
import resource, sys
import torch
torch.set_num_threads(1)
from ase.build import bulk
from ase_nbody import NBodyCalculator

def crystal(cells):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (cells, cells, cells)
    atoms.rattle(0.05)
    return atoms

calc = NBodyCalculator(sys.argv[1])
before = calc.get_property("energy", crystal(1))
for cells, free in (5, 10e6), (9, 60e6):
    limit = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0]) + int(free)
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    try:
        calc.get_property("energy", crystal(cells))
    except Exception as error:
        print(type(error).__name__, error)
print(calc.get_property("energy", crystal(1)) == before)
"""
DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
from ase_nbody.cli import main
main()
"""
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to set limits")


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@linux
def test_out_of_memory_says_what_would_fit(model) -> None:
    """With 1000 atoms an allocation fails; with 5832 the failure is foreseen. A small system works afterwards."""
    result = run(LIMITED, model)
    assert result.returncode == 0, result.stderr
    *failures, after = result.stdout.strip().splitlines()
    assert after == "True"
    for atoms, failure in zip((1000, 5832), failures, strict=True):
        assert failure.startswith(f"CalculationFailed out of memory: {atoms} atoms with ")
        assert 0 < int(failure.split("about ")[-1].split()[0]) < atoms
        assert "dtype='float32'" in failure


@pytest.fixture
def training(tmp_path, copper) -> Path:
    """A configuration that trains in a few seconds."""
    ase.io.write(tmp_path / "data.traj", copper)
    content = {
        "data": {"train": "data.traj", "validation": 1},
        "network": {"levels": [{"radius": 3.0, "channels": 4, "l_max": 1, "l_out": 0}]},
        "training": {"epochs": 1, "compile": False},
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "config.yaml"


def lines_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in result.stderr + result.stdout
    return result.stderr.strip().splitlines()


@linux
def test_a_full_disk_ends_the_training_in_one_line(training: Path) -> None:
    result = run(DISK, "train", training)
    assert result.returncode == 1
    assert lines_of(result)[-1].startswith("error: there is no room to write")
    assert not (training.parent / "run" / "model.nbody").exists()


@linux
def test_a_full_disk_leaves_the_old_model(model: Path, tmp_path) -> None:
    path = tmp_path / "model.nbody"
    path.write_bytes(model.read_bytes())
    script = (
        "from ase_nbody import load_model, save_model; import sys; save_model(load_model(sys.argv[1]), sys.argv[1])"
    )
    result = run("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); " + script, path)
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert path.read_bytes() == model.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.nbody"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_told(model) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "ase_nbody.cli", "info", str(model)]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "there is no room to write ([Errno 28] No space left on device)" in result.stderr


def test_an_interrupted_training_says_so_with_exit_code_130(training: Path) -> None:
    training.write_text(training.read_text().replace("epochs: 1", "epochs: 100000"))
    command = [sys.executable, "-m", "ase_nbody.cli", "train", str(training)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    checkpoint = training.parent / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].strip() == "interrupted"


def test_a_reader_that_closes_the_pipe_is_no_error(model) -> None:
    command = f"{sys.executable} -m ase_nbody.cli info {model} --json | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "{"
    assert result.stderr == ""
