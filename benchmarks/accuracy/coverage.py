"""Add to shipped models the record of what their training files cover, without changing a weight.

    python benchmarks/accuracy/coverage.py [MODEL ...]

Each model is read from ``models/``, and its training file from the configuration of the same name in this folder. The
file must have the checksum that the card names. New trainings record their coverage by themselves.
"""

import argparse
import hashlib
from pathlib import Path

from safetensors.torch import load_file

from ase_nbody.data import read_labelled
from ase_nbody.files.archive import load_members, read_card, save_model, shipped_models
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training import TrainingConfig

HERE = Path(__file__).resolve().parent


def add_coverage(name: str, path: Path) -> None:
    """Write the model at ``path`` anew, with the coverage of its training file."""
    card, config = read_card(path)["card"], TrainingConfig.from_yaml(HERE / f"{name}.yaml")
    (source,) = (Path(source.path) for source in config.data.train)
    if hashlib.sha256(source.read_bytes()).hexdigest() != card["training data sha256"]:
        raise SystemExit(f"{source} is not the file that {name} was trained on: its checksum differs from the card's")
    members = load_members(path)
    structures = [frame.structure for frame in read_labelled(source)]
    coverage = Coverage.of(structures, members[0].config.levels[0].radius)
    covered = NBodyConfig.model_validate(members[0].config.model_dump() | {"coverage": coverage})
    dtype = next(iter(load_file(path).values())).dtype  # ``load_members`` gives float64 in any case
    save_model([with_config(member, covered).to(dtype) for member in members], path, card)
    surroundings = sum(len(found) for found in coverage.bonded.values())
    print(f"{name}: {surroundings} bonded surroundings in {len(structures)} structures, densities {coverage.densities}")


def with_config(network: NBodyNetwork, config: NBodyConfig) -> NBodyNetwork:
    """A network with the same weights and another configuration."""
    other = NBodyNetwork(config).double()
    other.load_state_dict(network.state_dict())
    return other


def main() -> None:
    shipped = shipped_models()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: all, {', '.join(shipped)}")
    options = parser.parse_args()
    if unknown := set(options.models) - set(shipped):
        parser.error(f"no shipped model {', '.join(sorted(unknown))}; there are {', '.join(shipped)}")
    for name in options.models or shipped:
        add_coverage(name, shipped[name])


if __name__ == "__main__":
    main()
