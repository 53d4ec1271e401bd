"""What the tests share: systems of every kind, a small network with outputs of order one, ways to break a symmetry."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# Tests run side by side. Threads of OpenBLAS would wait for each other, for milliseconds in each 3 x 3 system of
# equations, and a test of a relaxation would take ten times as long. Numpy reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ase
import ase.build
import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT

from ase_nbody.cli import main
from ase_nbody.data.statistics import highest_densities
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy, Level, concatenate
from ase_nbody.network.config import LevelConfig, NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.aot import kept_library
from ase_nbody.runtime.compiled import programs
from ase_nbody.so3 import rotation_matrix
from ase_nbody.structure import Structure

torch.set_num_threads(1)  # tests run side by side; more threads than cores wait for each other

SPECIES = ("H", "C", "O", "Na", "Cl", "Cu")
# A triclinic cell that is thinner than the cutoff, so that an atom sees several images of itself and of the others.
TRICLINIC = np.array([[3.6, 0.0, 0.0], [0.9, 3.9, 0.0], [-0.7, 0.8, 4.3]])


def rattled(atoms: ase.Atoms, size: float = 0.08) -> ase.Atoms:
    """The same atoms, moved at random, so that no force vanishes by symmetry."""
    atoms.positions += np.random.default_rng(len(atoms)).normal(scale=size, size=atoms.positions.shape)
    return atoms


def molecule() -> ase.Atoms:
    return rattled(ase.build.molecule("CH3OH"))


def crystal() -> ase.Atoms:
    """Two atoms in a primitive cell: every neighbour is an image, many of them of the atom itself."""
    return rattled(ase.build.bulk("NaCl", "rocksalt", a=5.3))


def triclinic() -> ase.Atoms:
    scaled = [[0.1, 0.2, 0.1], [0.45, 0.7, 0.3], [0.8, 0.1, 0.75]]
    return ase.Atoms("HCO", scaled_positions=scaled, cell=TRICLINIC, pbc=True)


def left_handed() -> ase.Atoms:
    atoms = triclinic()
    atoms.set_cell(TRICLINIC[[1, 0, 2]])  # the same lattice and atoms, two vectors exchanged
    return atoms


def unwrapped() -> ase.Atoms:
    atoms = triclinic()
    atoms.positions += np.array([[2, 0, -1], [0, -3, 1], [5, 1, 0]]) @ TRICLINIC
    return atoms


def slab() -> ase.Atoms:
    """Periodic in two directions, with no lattice vector in the third."""
    atoms = ase.build.fcc111("Cu", (1, 1, 3), a=3.6)
    ase.build.add_adsorbate(atoms, "H", 1.3, (0.4, 0.2))
    return rattled(atoms)


def slab_in_box() -> ase.Atoms:
    """The slab with vacuum and the periodic directions 0 and 2."""
    atoms = slab()
    atoms.center(vacuum=4.0, axis=2)
    atoms = atoms[:]
    atoms.set_cell(atoms.cell.array[[0, 2, 1]])
    atoms.pbc = (True, False, True)
    return atoms


def wire() -> ase.Atoms:
    atoms = ase.Atoms("COH", positions=[[0, 0, 0], [1.1, 0.4, 0.2], [-0.4, 1.0, 0.3]], cell=[0, 0, 3.1])
    atoms.pbc = (False, False, True)
    return atoms


SYSTEMS: dict[str, Callable[[], ase.Atoms]] = {
    "molecule": molecule,
    "crystal": crystal,
    "triclinic": triclinic,
    "left-handed": left_handed,
    "unwrapped": unwrapped,
    "slab": slab,
    "slab in a box": slab_in_box,
    "wire": wire,
    "no anchors": lambda: ase.Atoms("H2", positions=[[0, 0, 0], [0.3, 0.5, 0.5]]),
    "lone hydrogen": lambda: ase.Atoms("H"),
    "lone carbon": lambda: ase.Atoms("C", positions=[[1.0, 2.0, 3.0]]),
    "no neighbours": lambda: ase.Atoms("COH", positions=[[0, 0, 0], [9, 0, 0], [0, 0, 30]]),
    "empty": lambda: ase.Atoms(),
}
WITH_FORCES = [name for name in SYSTEMS if name not in ("lone hydrogen", "lone carbon", "no neighbours", "empty")]
PERIODIC = ["crystal", "triclinic", "left-handed", "unwrapped"]


@pytest.fixture(params=list(SYSTEMS))
def system(request: pytest.FixtureRequest) -> ase.Atoms:
    """Each of the systems in turn."""
    return SYSTEMS[request.param]()


@pytest.fixture(params=WITH_FORCES)
def bound_system(request: pytest.FixtureRequest) -> ase.Atoms:
    """Each of the systems whose forces are not zero."""
    return SYSTEMS[request.param]()


@pytest.fixture(params=PERIODIC)
def periodic_system(request: pytest.FixtureRequest) -> ase.Atoms:
    """Each of the systems that have a stress."""
    return SYSTEMS[request.param]()


@pytest.fixture(scope="session")
def systems() -> dict[str, Callable[[], ase.Atoms]]:
    """Makers of all systems by name."""
    return SYSTEMS


def make_config(**changes: object) -> NBodyConfig:
    levels = (
        LevelConfig(radius=4.0, channels=8, hidden=8),
        LevelConfig(parts="heavy", radius=3.5, l_out=0, channels=8, message_channels=8, hidden=8),
    )
    isolated = {"H": -13.6, "C": -1029.1, "O": -2041.3, "Na": -4421.0, "Cl": -12516.0, "Cu": -44692.7}
    return NBodyConfig(**{"species": SPECIES, "levels": levels, "isolated_atom_energies": isolated, **changes})


def make_network(seed: int = 0, **changes: object) -> NBodyNetwork:
    """A network of random weights, none of which is zero or one, scaled to part energies of about 1 eV."""
    config = make_config(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NBodyNetwork(config)
        for weight in network.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
    without_repulsion = NBodyNetwork(config.model_copy(update={"repulsion": False}))
    without_repulsion.load_state_dict(network.state_dict())
    largest = max(float(part.abs().max()) for part in predict(without_repulsion, molecule()).parts)
    scaled = NBodyNetwork(config.model_copy(update={"energy_scale": 1.0 / largest}))
    scaled.load_state_dict(network.state_dict())
    return scaled.requires_grad_(False)


def hierarchy_of(network: NBodyNetwork, atoms: ase.Atoms, skin: float = 0.0) -> Hierarchy:
    structure = Structure.from_atoms(atoms)
    return build_hierarchy(structure, network.config.layout, skin)


def predict(network: NBodyNetwork, *systems: ase.Atoms, skin: float = 0.0, **keywords: object) -> Prediction:
    """What the potential says of one system or of a batch of them."""
    hierarchies = [hierarchy_of(network, atoms, skin) for atoms in systems]
    hierarchy = hierarchies[0] if len(systems) == 1 else concatenate(hierarchies)
    positions = torch.from_numpy(np.concatenate([atoms.positions for atoms in systems]))
    cells = torch.from_numpy(np.stack([atoms.cell.array for atoms in systems]))
    return evaluate(network, hierarchy, positions, cells, **keywords)


@pytest.fixture(scope="session")
def network() -> NBodyNetwork:
    return make_network()


@pytest.fixture(scope="session")
def three_levels() -> NBodyNetwork:
    """Every level with other parts, children, radius and degrees; the middle one is not read out."""
    small = {"channels": 4, "hidden": 4, "message_channels": 3}
    levels = (
        LevelConfig(radius=3.4, l_max=2, l_out=2, **small),
        LevelConfig(parts="heavy", radius=2.9, l_max=3, l_out=1, body_order=3, read_out=False, **small),
        LevelConfig(parts=("C", "O"), children=("O",), radius=3.9, l_max=1, l_out=1, body_order=2, **small),
    )
    # At 1.15 Angstrom the radial functions of the O-H bond are at rest, and those of the C-H bond are coming to it.
    closest = {f"{first}-{second}": 1.15 for i, first in enumerate(SPECIES) for second in SPECIES[i:]}
    return make_network(levels=levels, repulsion=True, closest_distances=closest, isolated_atom_energies={})


@pytest.fixture(scope="session")
def small_network() -> NBodyNetwork:
    """A network that is quickly compiled, of two small levels; children are chosen in one way, then in the other."""
    small = {"channels": 4, "l_max": 1, "hidden": 4}
    levels = (
        LevelConfig(radius=4.0, l_out=1, n_basis=4, **small),
        LevelConfig(parts="heavy", children="heavy", radius=3.5, l_out=0, message_channels=4, **small),
    )
    return make_network(levels=levels, repulsion=True, closest_distances={"H-C": 0.9, "Cu-Cu": 2.2})


@pytest.fixture(scope="session")
def native_code(small_network: NBodyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with all native code of the small network, compiled once for all tests, by whichever process is first."""
    folder = tmp_path_factory.getbasetemp().resolve()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "native_code"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBODY_CACHE", str(folder))
        for name, trace in programs(small_network, large=True).items():
            kept_library(small_network, name, trace)
    return folder


# The choices that a level offers beside its defaults, each in a network of its own.
CLEBSCH_GORDAN = {"product": "clebsch_gordan"}
FORMS: dict[str, dict[str, object]] = {
    "clebsch_gordan": {"channels": 3, "l_max": 3, **CLEBSCH_GORDAN},
    "first-order gate": {"channels": 3, "product": {"first_order": "clebsch_gordan"}},
    "zeroth-order gate": {"channels": 3, "product": {"zeroth_order": "clebsch_gordan"}},
    "both parities": {"channels": 3, "parity": "both", **CLEBSCH_GORDAN},
    "falling": {"channels": "4x0 + 2x1 + 1x2"},
    "rising": {"channels": "2x0 + 3x1 + 3x2", "product": {"first_order": "clebsch_gordan"}},
    "falling, free": {"channels": "4x0 + 2x1 + 1x2", **CLEBSCH_GORDAN},
    "children": {"channels": 3, "children_gate": True},
    "everything": {"channels": "4x0 + 2x1 + 1x2", "children_gate": True, "parity": "both", **CLEBSCH_GORDAN},
    "kondor": {
        "channels": "3x0 + 2x1 + 1x2",
        "channel_pairs": "all",
        "body_order": 3,
        "children_gate": True,
        "species_gains": False,
        **CLEBSCH_GORDAN,
    },
    "outside": {"channels": "4x0 + 2x1 + 1x2", "children_gate": True},  # fading, on an embedded-atom potential
}


def make_form(name: str, **changes: object) -> NBodyNetwork:
    """A network of one of the ``FORMS``; its third level shows whether the second hands up what it should."""
    form = {"l_max": 2, "hidden": 4, "n_basis": 4, "n_radial": 2, "message_channels": 3, **FORMS[name]}
    if isinstance(form["channels"], str):
        del form["l_max"]
    levels = (
        LevelConfig(radius=4.0, l_out=2, **form),
        LevelConfig(parts="heavy", radius=3.5, l_out=1, **form),
        LevelConfig(parts="heavy", children="heavy", radius=3.9, l_out=0, **form),
    )
    outside = with_sanity(levels) if name == "outside" else {}
    return make_network(levels=levels, repulsion=True, **outside, **changes)


def with_sanity(levels: tuple[LevelConfig, ...]) -> dict[str, object]:
    """Entries of a network that stands on an embedded-atom potential, and of whose states half has faded in places."""
    structures = [Structure.from_atoms(SYSTEMS[name]()) for name in ("molecule", "triclinic")]
    highest = highest_densities(structures, levels)
    lengths = {"C-O": 1.1, "O-O": 2.0, "Na-Cl": 2.6, "Cu-Cu": 2.2, "H-O": 0.9, "H-C": 1.0, "C-C": 1.3}
    return {
        "densest": tuple({symbol: density / 1.5 for symbol, density in level.items()} for level in highest),
        "embedded_atom": {
            "lengths": lengths,
            "repulsion": dict.fromkeys(lengths, 0.6),
            "binding": dict.fromkeys(SPECIES, 0.8),
            "decay": (5.0, 1.2),
        },
    }


@pytest.fixture(scope="session", params=list(FORMS))
def form(request: pytest.FixtureRequest) -> NBodyNetwork:
    """A network of each of the ``FORMS`` in turn."""
    return make_form(request.param)


@pytest.fixture(scope="session", name="make_form")
def _make_form() -> Callable[..., NBodyNetwork]:
    return make_form


@pytest.fixture(params=["two levels", "three levels"])
def any_network(request: pytest.FixtureRequest, network: NBodyNetwork, three_levels: NBodyNetwork) -> NBodyNetwork:
    return {"two levels": network, "three levels": three_levels}[request.param]


@pytest.fixture(scope="session", name="make_config")
def _make_config() -> Callable[..., NBodyConfig]:
    return make_config


@pytest.fixture(scope="session", name="make_network")
def _make_network() -> Callable[..., NBodyNetwork]:
    return make_network


@pytest.fixture(scope="session", name="hierarchy_of")
def _hierarchy_of() -> Callable[..., Hierarchy]:
    return hierarchy_of


@pytest.fixture(scope="session", name="predict")
def _predict() -> Callable[..., Prediction]:
    return predict


@pytest.fixture(scope="session")
def padded_level(network: NBodyNetwork) -> Level:
    """The second level of a batch: its parts have from none to many children, so that most rows are padded."""
    batch = [molecule(), SYSTEMS["lone hydrogen"](), triclinic(), SYSTEMS["lone carbon"](), wire()]
    level = concatenate([hierarchy_of(network, atoms) for atoms in batch]).levels[1]
    assert 0.1 < level.mask.double().mean() < 0.9
    return level


def _transposed(l_max: int, rotation: torch.Tensor) -> torch.Tensor:
    return rotation_matrix(l_max, rotation).T


def _scaled(l_max: int, rotation: torch.Tensor) -> torch.Tensor:
    return (1.0 + 1e-8) * rotation_matrix(l_max, rotation)


def _wrong_parity(l_max: int, rotation: torch.Tensor) -> torch.Tensor:
    return torch.linalg.det(rotation) * rotation_matrix(l_max, rotation)


@pytest.fixture(params=[_transposed, _scaled, _wrong_parity], ids=lambda broken: broken.__name__.strip("_"))
def broken_representation(request: pytest.FixtureRequest) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """A way to turn a state that is wrong: a checker of covariance must refuse it."""
    return request.param


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of reference data beside the project's root."""
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the reference data are not beside the project's root")
    return folder


@pytest.fixture
def nbody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line ``nbody`` with arguments; its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nbody", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ModuleType]:
    """A function that imports a script of the repository.

    Scripts have plain names, such as ``run``, and so have files beside the tests. What is imported under the names of
    the script's folder is set aside until the test ends.
    """

    def load(path: Path) -> ModuleType:
        monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
        for name in [file.stem for file in path.parent.glob("*.py")]:
            monkeypatch.setitem(sys.modules, name, None)  # remembers what was there
            del sys.modules[name]
        return importlib.import_module(path.stem)

    return load


@pytest.fixture
def liquid() -> ase.Atoms:
    """Two waters, CO2 with C at its centroid, methanol and an ion in a triclinic cell, with labels of the molecules."""
    cell = np.array([[9.5, 0.0, 0.0], [1.5, 9.2, 0.0], [-1.0, 1.2, 9.8]])
    places = {"H2O": (0.95, 0.1, 0.1), "CO2": (0.3, 0.55, 0.6), "CH3OH": (0.8, 0.9, 0.75), "Na": (0.55, 0.3, 0.3)}
    atoms, labels = ase.Atoms(cell=cell, pbc=True), []
    rng = np.random.default_rng(0)
    for label, (name, place) in enumerate([*places.items(), ("H2O", (0.7, 0.5, 0.2))]):
        one = ase.Atoms("Na", [[0.0, 0.0, 0.0]]) if name == "Na" else ase.build.molecule(name)
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.positions += np.array(place) @ cell - (one.positions[0] if name == "CO2" else 0.0)
        if name != "CO2":
            one.positions += rng.normal(scale=0.03, size=one.positions.shape)
        atoms += one
        labels += [label] * len(one)
    atoms.set_array("parts", np.array(labels))
    return atoms


def make_labelled_network(seed: int = 0, **changes: object) -> NBodyNetwork:
    """A network of environments, clusters, molecules and molecules again, read out at the labelled levels alone.

    Part energies are of the order of 1 eV.
    """
    small = {"channels": 4, "hidden": 4, "message_channels": 3, "mean_children": 2.0, "body_order": 3}
    levels = (
        LevelConfig(radius=3.4, l_max=2, l_out=2, read_out=False, **small),
        LevelConfig(parts="heavy", radius=3.5, l_max=2, l_out=2, read_out=False, **small),
        LevelConfig(parts="labels", radius=3.0, l_max=3, l_out=1, **small),
        LevelConfig(parts="labels", radius=4.5, l_max=2, l_out=0, member_weights="equal", **small),
    )
    config = make_config(**{"levels": levels, "isolated_atom_energies": {}, "energy_scale": 300.0, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NBodyNetwork(config)
        for weight in network.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
    return network.requires_grad_(False)


@pytest.fixture(scope="session")
def labelled_network() -> NBodyNetwork:
    return make_labelled_network()


@pytest.fixture(scope="session", name="make_labelled_network")
def _make_labelled_network() -> Callable[..., NBodyNetwork]:
    return make_labelled_network


@pytest.fixture
def copper() -> list[ase.Atoms]:
    """Four cubic cells of copper, displaced at random, with energies and forces of EMT."""
    frames = []
    for seed in range(4):
        atoms = ase.build.bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        frames.append(atoms)
    return frames
