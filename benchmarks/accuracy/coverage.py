"""Add to models the record of what their training files cover, without changing a weight.

    python benchmarks/accuracy/coverage.py [MODEL ...] [--fading]
    python benchmarks/accuracy/coverage.py FILE.nbody --data train.extxyz

Shipped models are read from ``models/``, and their training files from the configurations of the same names in this
folder; those without one need ``--data``. The training file must have the checksum that the card names. New trainings
record their coverage by themselves. ``--fading`` lets states fade out beyond the densities of the data, too, which
changes nothing within them. The pairs of elements are printed that were never bonded, and those that were never in
contact, for the card.
"""

import argparse
import hashlib
from pathlib import Path

from ase_nbody.data import read_labelled
from ase_nbody.data.statistics import highest_densities
from ase_nbody.files.archive import read_stored_and_card, shipped_models, write_model
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.coverage import Coverage
from ase_nbody.training import TrainingConfig

HERE = Path(__file__).resolve().parent


def training_file(name: str) -> Path:
    """The file that a shipped model was trained on."""
    (path,) = {source.path for source in TrainingConfig.from_yaml(HERE / f"{name}.yaml").data.train}
    return Path(path)


def add_coverage(name: str, path: Path, source: Path, fading: bool) -> None:
    """Write the model at ``path`` anew, with the coverage of its training file."""
    stored, content = read_stored_and_card(path)
    if hashlib.sha256(source.read_bytes()).hexdigest() != content["card"].get("training data sha256"):
        raise SystemExit(f"{source} is not the file that {name} was trained on: its checksum is not in the card")
    if stored.config.coverage is not None and "started from" in content["card"]:
        print(
            f"{name} started from another model, whose data the record leaves out: it has those of {source.name} alone"
        )
    structures = [frame.structure for frame in read_labelled(source)]
    coverage = Coverage.of(structures, stored.config.levels[0].radius)
    added: dict[str, object] = {"coverage": coverage}
    if fading:
        added["densest"] = highest_densities(structures, stored.config.levels)
    covered = NBodyConfig.model_validate(stored.config.model_dump() | added)
    write_model(stored._replace(config=covered), path, content["card"])  # with the energies and heads of its members
    surroundings = sum(len(found) for found in coverage.bonded.values())
    print(f"{name}: {surroundings} bonded surroundings in {len(structures)} structures, densities {coverage.densities}")
    print(f"Pairs never bonded: {', '.join(coverage.missing(coverage.bonds)) or 'none'}")
    print(f"Pairs never in contact: {', '.join(coverage.missing(coverage.contacts or ())) or 'none'}")


def main() -> None:
    shipped = {name: path for name, path in shipped_models().items() if (HERE / f"{name}.yaml").is_file()}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: all, {', '.join(shipped)}")
    parser.add_argument("--fading", action="store_true", help="let states fade out beyond the densities of the data")
    parser.add_argument("--data", type=Path, help="the training file of one model, which is then named by its file")
    options = parser.parse_args()
    if options.data:
        if len(options.models) != 1:
            parser.error(f"--data is the training file of one model, and {len(options.models)} are given")
        add_coverage(options.models[0], Path(options.models[0]), options.data, options.fading)
        return
    if unknown := set(options.models) - set(shipped):
        parser.error(f"no configuration of {', '.join(sorted(unknown))} here; there are {', '.join(shipped)}")
    for name in options.models or shipped:
        add_coverage(name, shipped[name], training_file(name), options.fading)


if __name__ == "__main__":
    main()
