"""Compiled code is loaded only if nobody but this user and root can have placed it, and a full disk ends no process."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from ase_nbody import NBodyCalculator
from ase_nbody.files.writing import write_whole
from ase_nbody.runtime import aot, aot_cache, aot_loader
from ase_nbody.runtime.aot import Traceable, compile_library, kept_library, library_path
from ase_nbody.runtime.aot_cache import UntrustedCodeError
from ase_nbody.runtime.aot_loader import load_code
from ase_nbody.runtime.aot_package import DamagedCodeError, packed, signature
from ase_nbody.runtime.torch_cache import folder_name

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs owners and modes")
STRANGER = 4242


DOUBLE = Traceable(lambda weights, tensors: (2.0 * tensors[0],), [torch.zeros(11)], [(0,)])


def keep_nothing(network, traceable, path):
    """Stands for the compiler: a file that is whole, but whose code no loader reads."""
    write_whole(path, content_of(network, traceable, path.stem), private=True)


def content_of(network, traceable, name, package=b"code"):
    return packed(package, name, signature(list(network.parameters()), traceable.tensors, traceable.free))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folders of this user are within a folder of the test, and nothing has been said. Umask 0 hides no mistake."""
    monkeypatch.setattr(aot_cache.platformdirs, "user_cache_path", lambda name: tmp_path / "home" / name)
    monkeypatch.setattr(aot_cache.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path / "deep" / "cache"))
    aot_cache._say_once.cache_clear()
    before = os.umask(0)
    yield tmp_path
    os.umask(before)
    aot_cache._say_once.cache_clear()


@pytest.fixture
def keep(small_network, monkeypatch):
    """Keeps what stands for the compiled code of the small network."""
    monkeypatch.setattr(aot, "compile_library", keep_nothing)
    return lambda: kept_library(small_network, "whole", lambda _: DOUBLE)


@pytest.fixture
def placed(home, small_network):
    """A file where the code of the small network is looked for, and its folder, both this user's alone."""
    path = library_path(small_network, "whole")
    path.parent.mkdir(parents=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(content_of(small_network, DOUBLE, path.stem))
    return path


def give_away(path, monkeypatch):
    """From here on a file or folder belongs to a stranger."""
    fstat, number = os.fstat, path.stat().st_ino

    def foreign(descriptor):
        found = fstat(descriptor)
        fields = list(found)
        fields[4] = STRANGER  # st_uid
        return os.stat_result(fields) if found.st_ino == number else found

    monkeypatch.setattr(os, "fstat", foreign)


def foreign_file(path, monkeypatch):
    give_away(path, monkeypatch)


def foreign_folder(path, monkeypatch):
    give_away(path.parent, monkeypatch)


def file_of_the_group(path, monkeypatch):
    path.chmod(0o620)


def file_of_all(path, monkeypatch):
    path.chmod(0o602)


def folder_of_the_group(path, monkeypatch):
    path.parent.chmod(0o770)


def folder_of_all(path, monkeypatch):
    path.parent.chmod(0o1777)


DOORS = [foreign_file, foreign_folder, file_of_the_group, file_of_all, folder_of_the_group, folder_of_all]


@pytest.mark.parametrize("door", DOORS)
def test_code_that_others_may_have_placed_is_compiled_elsewhere(door, home, placed, keep, monkeypatch, capsys):
    """With one sentence; what the stranger placed stays as it was and is not loaded."""
    theirs = placed.read_bytes()
    placed.write_bytes(theirs + b"!")
    door(placed, monkeypatch)
    path = keep()
    assert path == home / "home" / "ase-nbody" / placed.name
    assert path.read_bytes() == theirs
    assert placed.read_bytes() == theirs + b"!"
    assert keep() == path
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"Compiled code is kept in {path.parent}, because ")
    assert ("chmod go-w" in said) != (f"belongs to another user (number {STRANGER})" in said)


@pytest.mark.parametrize("door", DOORS)
def test_the_loader_looks_again(door, placed, monkeypatch):
    """At the very file that it reads: it may have been exchanged after its place was chosen."""
    door(placed, monkeypatch)
    with pytest.raises(UntrustedCodeError, match=r"belongs to another user|other users may write"):
        load_code(str(placed), torch.device("cpu"))


@pytest.mark.parametrize("owner", [0, None])
def test_code_of_this_user_and_of_root_is_trusted(owner, placed, keep, monkeypatch, capsys):
    """Others may read it."""
    monkeypatch.setitem(globals(), "STRANGER", os.geteuid() if owner is None else owner)
    give_away(placed, monkeypatch)
    give_away(placed.parent, monkeypatch)
    placed.parent.chmod(0o755)
    placed.chmod(0o644)
    assert keep() == placed
    assert capsys.readouterr().err == ""
    with pytest.raises(Exception, match=r"(?i)zip|archive|package|file"):  # it is read, and its code is none
        load_code(str(placed), torch.device("cpu"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_the_place_of_code_is_replaced(placed, keep):
    """Opening it would wait for a writer that never comes."""
    placed.unlink()
    os.mkfifo(placed, mode=0o600)
    assert keep() == placed
    assert placed.is_file()


def test_if_no_folder_is_safe_it_is_evaluated_eagerly(home, placed, keep, small_network, systems):
    """Each folder where code would be kept is one that all may write to."""
    for folder in (placed.parent, home / "home" / "ase-nbody", home / "tmp" / f"ase-nbody-{os.geteuid()}"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
    atoms, other = systems["triclinic"](), systems["triclinic"]()
    atoms.calc, other.calc = NBodyCalculator(small_network, compile=True), NBodyCalculator(small_network)
    with pytest.warns(RuntimeWarning, match="evaluating without compiled code: other users may write to .*deep/cache"):
        assert atoms.get_potential_energy() == other.get_potential_energy()


def test_a_user_without_a_cache_folder_has_one_for_temporary_files(home, placed, keep, capsys):
    placed.parent.chmod(0o777)
    (home / "home").touch()  # a file, so that there can be no folder below it
    path = keep()
    assert path == home / "tmp" / f"ase-nbody-{os.geteuid()}" / placed.name
    assert str(path.parent) in capsys.readouterr().err


def test_a_user_without_a_home_has_one_for_temporary_files_too(home, placed, keep, monkeypatch, capsys):
    """As in a container that runs under any number, where no folder can be made in the home folder."""
    monkeypatch.delenv("NBODY_CACHE")
    (home / "home").touch()
    path = keep()
    assert path == home / "tmp" / f"ase-nbody-{os.geteuid()}" / placed.name
    said = f"Compiled code is kept in {path.parent}, because {home / 'home' / 'ase-nbody'} cannot be made ("
    assert capsys.readouterr().err.startswith(said)


def test_a_folder_that_this_user_may_only_read_gives_what_it_holds_and_takes_nothing(
    home, placed, keep, monkeypatch, capsys
):
    """As a folder of root that all may read, or one on a file system without writing."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != placed.parent and access(path, mode))
    assert keep() == placed
    placed.unlink()
    path = keep()
    assert path == home / "home" / "ase-nbody" / placed.name
    assert f"because this user may not write to {placed.parent}" in capsys.readouterr().err


@pytest.fixture
def _no_compiler(monkeypatch):
    """Tracing is real, the package is 100 kB of nothing."""

    def compile_and_package(program, *, package_path, inductor_configs):
        content = b"x" * 100_000
        Path(package_path).write_bytes(content) if isinstance(package_path, str) else package_path.write(content)

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_and_package)


@pytest.mark.usefixtures("_no_compiler")
@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o600), (0o022, 0o600), (0o277, 0o400)])
def test_new_folders_and_files_are_private(umask, mode, home, small_network):
    os.umask(umask & 0o077)
    path = kept_library(small_network, "double", lambda _: DOUBLE)
    os.umask(umask)
    compile_library(small_network, DOUBLE, path)
    modes = {one.relative_to(home).as_posix(): one.stat().st_mode & 0o777 for one in home.rglob("*")}
    lock = path.with_suffix(".lock")
    if lock.exists():
        assert modes.pop(f"deep/cache/{lock.name}") == 0o600
    assert modes == {
        **dict.fromkeys(("deep", "deep/cache", f"deep/cache/{folder_name()}"), 0o700),
        f"deep/cache/{path.name}": mode,
    }


@pytest.mark.usefixtures("keep")
def test_after_a_full_disk_it_is_evaluated_eagerly(home, small_network, systems, monkeypatch):
    """As without a compiler; the folder has no unfinished file."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(aot_cache.os, "fsync", full)
    atoms, other = systems["triclinic"](), systems["triclinic"]()
    atoms.calc, other.calc = NBodyCalculator(small_network, compile=True), NBodyCalculator(small_network)
    with pytest.warns(RuntimeWarning, match="evaluating without compiled code: .*No space left on device"):
        assert atoms.get_potential_energy() == other.get_potential_energy()
    assert {path.suffix for path in (home / "deep" / "cache").iterdir()} <= {".lock"}


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from ase_nbody import NBodyConfig, NBodyNetwork
from ase_nbody.runtime.aot import Traceable, compile_library

def compile_and_package(program, *, package_path, inductor_configs):
    writer = torch._C.PyTorchFileWriter(package_path)  # as torch's packager does it
    writer.write_record("code", b"x" * 100_000, 100_000)
    writer.write_end_of_file()

torch._inductor.aoti_compile_and_package = compile_and_package
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
double = Traceable(lambda weights, tensors: (2.0 * tensors[0],), [torch.zeros(11)], [(0,)])
try:
    compile_library(NBodyNetwork(NBodyConfig(species=("H",))), double, Path(sys.argv[1]) / "some-double.pt2")
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_does_not_end_the_process(tmp_path):
    """A limit for the size of files stands for the disk. Torch's writer of files aborts the process (-6)."""
    environment = {**os.environ, "NBODY_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == os.strerror(errno.EFBIG)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


# --- damaged files ---------------------------------------------------------------------------------------------------


def cut_short(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def a_bit(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def a_bit_of_what_it_takes(content):
    return content.replace(b"float32[*]", b"float64[*]")


def a_package_of_torch(content):
    return content[-len(b"code") :]


@pytest.mark.parametrize("damage", [cut_short, empty, a_bit, a_bit_of_what_it_takes, a_package_of_torch])
def test_a_damaged_file_is_compiled_anew(damage, placed, keep):
    whole = placed.read_bytes()
    assert damage(whole) != whole
    placed.write_bytes(damage(whole))
    with pytest.raises(DamagedCodeError, match="the file is damaged"):
        load_code(str(placed), torch.device("cpu"))
    assert keep() == placed
    assert placed.read_bytes() == whole


OTHERS = {
    "another name": (DOUBLE, "other"),
    "another number": (Traceable(DOUBLE.function, [torch.zeros(11)] * 2, [(0,)] * 2), None),
    "another dtype": (Traceable(DOUBLE.function, [torch.zeros(11, dtype=torch.int64)], [(0,)]), None),
    "another size": (Traceable(DOUBLE.function, [torch.zeros(11)], [()]), None),
    "another dimension": (Traceable(DOUBLE.function, [torch.zeros(11, 3)], [(0,)]), None),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_code_that_takes_something_else_never_runs(kind, placed, keep, small_network, monkeypatch):
    """Its checksum is right. It would end the process: its runtime aborts if it is given other tensors."""
    monkeypatch.setattr(aot_loader, "_load_copy", lambda *_: pytest.fail("loaded"))
    whole, (traceable, name) = placed.read_bytes(), OTHERS[kind]
    placed.write_bytes(content_of(small_network, traceable, name or placed.stem))
    taken = signature(list(small_network.parameters()), DOUBLE.tensors, DOUBLE.free)
    with pytest.raises(DamagedCodeError, match=r"holds other code, other|takes other tensors"):
        load_code(str(placed), torch.device("cpu"), taken)
    assert keep() == placed
    assert placed.read_bytes() == whole


@pytest.mark.parametrize("step", ["FileLock", "compile_library"])
def test_a_damaged_file_that_cannot_be_replaced_is_named_with_a_remedy(step, placed, small_network, monkeypatch):
    def forbidden(*_, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(placed))

    monkeypatch.setattr(aot, step, forbidden)
    placed.write_bytes(b"damaged")
    with pytest.raises(DamagedCodeError, match=rf"may not replace {placed} .*damaged.*: remove it, or set NBODY_CACHE"):
        kept_library(small_network, "whole", lambda _: DOUBLE)


@pytest.mark.usefixtures("keep")
def test_code_that_no_loader_reads_is_named_with_a_remedy(home, small_network, systems):
    """Its checksum is right, so it would not be better if it were compiled anew."""
    atoms, other = systems["triclinic"](), systems["triclinic"]()
    atoms.calc, other.calc = NBodyCalculator(small_network, compile=True), NBodyCalculator(small_network)
    with pytest.warns(RuntimeWarning, match=r"-whole.code cannot be loaded .*: remove it, and it is compiled anew"):
        assert atoms.get_potential_energy() == other.get_potential_energy()


@pytest.mark.usefixtures("keep")
def test_a_full_folder_of_temporary_files_is_named(home, small_network, systems, monkeypatch):
    """The code is good, so nobody is told to remove it. Torch's own loader is not tried: it leaves files behind."""

    def full(path, device):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(aot_loader, "torch_is_tested", lambda: True)
    monkeypatch.setattr(aot_loader, "_load_privately", full)
    monkeypatch.setattr(aot_loader, "_load_publicly", lambda *_: pytest.fail("tried"))
    (home / "tmp").mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))
    atoms = systems["triclinic"]()
    atoms.calc = NBodyCalculator(small_network, compile=True)
    with pytest.warns(RuntimeWarning, match=r"-whole.code cannot be loaded, because .*tmp is full: make room there"):
        atoms.get_potential_energy()
    assert not list((home / "tmp").iterdir())
