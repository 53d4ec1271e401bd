"""Torch's compiler loads the libraries that it finds in its folder, so nobody else may have made that folder."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch._inductor import codecache, config
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir, triton_cache_dir

from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.runtime import aot, aot_cache, torch_cache
from ase_nbody.runtime.aot import Traceable, compile_library
from ase_nbody.runtime.torch_cache import folder_name, private_torch_cache
from ase_nbody.structure import Structure
from ase_nbody.training.compiled_step import CompiledPotential

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs owners and modes")
STRANGER = 4242


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder in which compiled code is kept; torch's own folder is one that a stranger has made and filled."""
    planted = tmp_path / "planted"
    planted.mkdir(mode=0o777)
    (planted / "evil.so").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(planted))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(planted))
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(aot_cache.platformdirs, "user_cache_path", lambda name: tmp_path / "home" / name)
    monkeypatch.setattr(aot_cache, "_other_folders", lambda: iter([tmp_path / "home"]))
    return tmp_path / "cache"


def places():
    """Where torch would look for libraries and headers."""
    headers = Path(codecache._HEADER_DIR).parent, Path(codecache._HEADER_LOCK_DIR).parents[1]
    return Path(cache_dir()), Path(default_cache_dir()).parent, Path(triton_cache_dir(0)).parent, *headers


def test_torch_works_in_a_folder_of_this_user_alone(cache):
    before, temporary = places(), tempfile.gettempdir()
    with private_torch_cache() as folder:
        assert places() == (folder,) * 5
        assert not config.aot_inductor.precompile_headers
        assert folder == (cache / folder_name()).resolve()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert places() == before
    assert tempfile.gettempdir() == temporary
    with pytest.raises(KeyError), private_torch_cache():
        raise KeyError
    assert places() == before


def of_a_stranger(folder, monkeypatch):
    stat, number = os.stat, folder.stat().st_ino

    def foreign(path, **options):
        found = stat(path, **options)
        fields = list(found)
        fields[4] = STRANGER  # st_uid
        return os.stat_result(fields) if found.st_ino == number else found

    monkeypatch.setattr(torch_cache.os, "stat", foreign)


def open_to_all(folder, monkeypatch):
    folder.chmod(0o777)


def open_to_the_group(folder, monkeypatch):
    folder.chmod(0o770)


@pytest.mark.parametrize("place", ["torch", "cache", "above"])
@pytest.mark.parametrize("door", [of_a_stranger, open_to_all, open_to_the_group])
def test_a_folder_that_others_may_have_filled_is_not_used(door, place, cache, tmp_path, monkeypatch):
    with private_torch_cache() as folder:
        pass
    door({"torch": folder, "cache": cache, "above": tmp_path}[place], monkeypatch)
    with private_torch_cache() as other:
        assert places() == (other,) * 5
        assert other.stat().st_mode & 0o777 == 0o700
        assert (other == tmp_path / "home" / folder_name()) == (place != "above")
        assert tmp_path not in other.parents or place != "above"


def test_nothing_is_left_in_a_folder_that_is_not_used(cache, tmp_path):
    cache.mkdir()
    cache.chmod(0o777)
    with private_torch_cache() as folder:
        assert folder == tmp_path / "home" / folder_name()
    assert not list(cache.iterdir())


def test_a_folder_that_this_user_may_only_read_is_not_used(cache, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != cache / folder_name() and access(path, mode))
    with private_torch_cache() as folder:
        assert folder == tmp_path / "home" / folder_name()


def test_a_link_to_a_folder_of_a_stranger_is_not_used(cache, tmp_path):
    cache.mkdir(mode=0o700)
    (tmp_path / "planted").chmod(0o777)
    (cache / folder_name()).symlink_to(tmp_path / "planted")
    with private_torch_cache() as folder:
        assert folder == tmp_path / "home" / folder_name()


def test_both_compilers_work_there(cache, small_network, systems, monkeypatch):
    """That of native code, and that of the training step."""
    seen = []

    def compile_and_package(program, *, package_path, inductor_configs):
        seen.append(places())
        package_path.write(b"code")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_and_package)
    double = Traceable(lambda weights, tensors: (2.0 * tensors[0],), [torch.zeros(11)], [(0,)])
    cache.mkdir(mode=0o700)
    compile_library(small_network, double, cache / "some-double.code")
    assert aot.library_path(small_network, "double").parent == cache

    def compiled(*arguments, **options):
        seen.append(places())
        raise RuntimeError("seen")

    monkeypatch.setattr(torch, "compile", compiled)
    structure = Structure.from_atoms(systems["molecule"]())
    hierarchy = build_hierarchy(structure, small_network.config.layout, 0.0)
    positions, cells = torch.tensor(structure.positions), torch.tensor(structure.cell)[None]
    with pytest.warns(RuntimeWarning, match="seen"):
        CompiledPotential(small_network, virials=False, patience=1)(hierarchy, positions, cells)
    folder = (cache / folder_name()).resolve()
    assert seen == [(folder,) * 5] * 2


def test_each_folder_has_headers_of_its_own(cache, monkeypatch):
    """Torch remembers where it has compiled a header, and would take it from there again."""
    compiled = []

    @functools.cache
    def precompile(header):
        place = Path(codecache._HEADER_DIR, f"{len(compiled)}.h")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        compiled.append(place)
        return str(place)

    monkeypatch.setattr(codecache, "_precompile_header", precompile)
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(cache / "planted"))
    precompile("kernels.h")
    with private_torch_cache() as folder:
        for _ in range(2):
            assert codecache._precompile_header("kernels.h") == str(folder / "headers" / "1.h")
        compiled[1].unlink()
        assert codecache._precompile_header("kernels.h") == str(folder / "headers" / "2.h")
    assert codecache._precompile_header("kernels.h") == str(cache / "planted" / "0.h")
    assert len(compiled) == 3


def test_without_openssl_no_headers_are_compiled(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with private_torch_cache():
        assert not config.cpp_cache_precompile_headers


def test_the_home_folder_of_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NBODY_CACHE", "~/code")
    assert aot_cache.cache_folder() == tmp_path / "code"


def test_the_package_is_imported_where_torch_cannot_make_its_folder(tmp_path):
    """Torch makes it when e3nn imports its compiler. A file in its place made every command fail with a traceback."""
    place = tmp_path / "file"
    place.touch()
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(place)}
    script = "import os, ase_nbody.network; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == str(place), run.stderr[-500:]


@pytest.mark.parametrize("name", ["with space", "quo'te", "dol$lar"])
def test_folders_that_the_compiler_cannot_be_told_are_not_taken(name, tmp_path, monkeypatch):
    """Torch splits its command at spaces: with a home folder of such a name, nothing could be compiled."""
    place = tmp_path / name
    place.mkdir()
    monkeypatch.setattr(torch_cache, "own_folders", lambda: iter([place]))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(torch_cache, "_temporary", functools.cache(torch_cache._temporary.__wrapped__))
    with private_torch_cache() as folder:
        assert place not in folder.parents
        assert folder.is_dir()
    torch_cache._temporary().cleanup()
    assert not list(place.iterdir())
