"""Kept code is found again as long as nothing changes that it depends on, and never after that."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch

from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.aot_key import library_key
from ase_nbody.runtime.processor import processor_key
from ase_nbody.runtime.sources import PACKAGE, SOURCES, hash_sources, source_files
from ase_nbody.runtime.torch_cache import folder_name

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
LISTED = {path.relative_to(PACKAGE).as_posix() for path in source_files(PACKAGE)}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package's sources."""
    folder = tmp_path_factory.mktemp("copy") / "ase_nbody"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, folder / name)
    return folder


def key(package):
    return hash_sources(package)


@pytest.mark.parametrize("name", FILES)
def test_the_key_depends_on_the_listed_files_alone(name, package):
    """Not on the calculator, the commands or the training, which change often."""
    before, path = key(package), package / name
    content = path.read_bytes()
    path.write_bytes(content + b"# a comment\n")
    after = key(package)
    path.write_bytes(content)
    assert (after != before) == (name in LISTED)
    assert key(package) == before


def test_some_files_are_listed_and_some_are_not():
    assert {"nn/gates.py", "so3/gaunt.py", "potential.py", "network/network.py", "runtime/compiled.py"} <= LISTED
    assert not LISTED & {"engines/calculator.py", "cli/md.py", "training/run.py", "files/archive.py", "__init__.py"}
    for name in SOURCES:
        assert (PACKAGE / name).exists()


def test_a_renamed_and_a_new_file_change_the_key(package):
    before, path = key(package), package / "nn" / "heads.py"
    renamed = path.rename(path.with_name("tails.py"))
    assert key(package) != before
    renamed.rename(path)
    new = package / "nn" / "new.py"
    new.write_text("")
    assert key(package) != before
    new.unlink()
    assert key(package) == before


UPGRADED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import ase_nbody

package = Path(ase_nbody.__file__).parent
assert package == Path(sys.argv[1]) / "ase_nbody"
gates = package / "nn" / "gates.py"
before, newer = gates.read_bytes(), gates.read_bytes() + b"# newer"
from ase_nbody import NBodyConfig, NBodyNetwork
network = NBodyNetwork(NBodyConfig(species=("H",)))

gates.write_bytes(newer)
from ase_nbody.runtime.aot_key import library_key
from ase_nbody.runtime import compiled, sources
try:
    library_key(network)
except RuntimeError as error:
    assert "has changed since this process started; start it again" in str(error)
    print("refused")
gates.write_bytes(before)
print(library_key(network))
gates.write_bytes(newer)
print(library_key(network))
names = [path.relative_to(package.parent).with_suffix("").as_posix() for path in sources.source_files(package)]
print({name.replace("/", ".").removesuffix(".__init__") for name in names} - set(sys.modules))
"""


def test_an_upgrade_under_a_living_process_gives_no_key_to_old_code(package):
    """Before the first key, modules may be old or new. After it, all are loaded, and the key stays theirs."""
    path = package / "nn" / "gates.py"
    content = path.read_bytes()
    command = [sys.executable, "-c", UPGRADED, str(package.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    path.write_bytes(content)
    assert result.returncode == 0, result.stderr
    refused, before, after, not_loaded = result.stdout.splitlines()
    assert refused == "refused"
    assert before == after
    assert not_loaded == "set()"


def test_the_key_depends_on_configuration_and_dtype_but_not_on_weights(network):
    config = network.config
    assert library_key(NBodyNetwork(config)) == library_key(network)
    changes = ({"repulsion": True}, {"energy_scale": 2.0}, {"isolated_atom_energies": {"H": -13.0}})
    others = [NBodyNetwork(config.model_copy(update=change)) for change in changes]
    keys = {library_key(one) for one in (network, *others, copy.deepcopy(network).to(torch.float32))}
    assert len(keys) == 5


def test_code_for_another_processor_is_never_taken(network, monkeypatch):
    """Two processors may both have AVX512, and one of them instructions that end the process on the other."""
    keys, folders = set(), set()
    for present in (True, False):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda present=present: {"avx2": True, "avx512_fp16": present}
        )
        processor_key.cache_clear()
        keys.add(library_key(network))
        folders.add(folder_name())
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in earlier versions of torch
    processor_key.cache_clear()
    keys.add(library_key(network))
    monkeypatch.undo()
    processor_key.cache_clear()
    assert len(keys) == 3
    assert len(folders) == 2


# Builds and traces a network without compiling it, and prints the modules of the package whose functions ran meanwhile.
TRACED = """
import sys
from pathlib import Path
from torch.fx.experimental.proxy_tensor import make_fx
import ase_nbody
from ase_nbody import LevelConfig, NBodyConfig, NBodyNetwork
from ase_nbody.runtime.compiled import programs
from ase_nbody.runtime.vector_steps import vector_programs

tiny = {"channels": 2, "l_max": 1, "hidden": 2, "n_basis": 2, "message_channels": 2}
levels = (LevelConfig(**tiny, l_out=1), LevelConfig(**tiny, l_out=0, parts="heavy", children="heavy"))
closest = {"H-C": 0.9}
config = NBodyConfig(species=("H", "C"), levels=levels, repulsion=True, closest_distances=closest)
package, files = str(Path(ase_nbody.__file__).parent), set()

def note(frame, event, argument):
    files.add(frame.f_code.co_filename)

sys.setprofile(note)
network = NBodyNetwork(config).requires_grad_(False)
for trace in (*programs(network, large=True).values(), *vector_programs(network).values()):
    traceable = trace(network)
    make_fx(traceable.function)([weight.detach() for weight in network.parameters()], traceable.tensors)
sys.setprofile(None)
print(*(Path(file).relative_to(package).as_posix() for file in files if file.startswith(package)))
"""


def test_every_module_that_runs_while_a_network_is_traced_is_listed():
    """In a process of its own, where nothing that ran before is remembered."""
    result = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    ran = set(result.stdout.split())
    assert {"nn/gates.py", "nn/repulsion.py", "so3/clebsch_gordan.py", "potential.py", "runtime/compiled.py"} <= ran
    assert ran <= LISTED, f"add {sorted(ran - LISTED)} to SOURCES in runtime/aot_key.py: compiled code depends on it"
