"""What a training learns from, by its contents: a resumed run must go on with the same data and the same start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase_nbody.data import DataError
from ase_nbody.data.file_names import data_file
from ase_nbody.files.archive import find_model, read_card
from ase_nbody.training.callbacks import AtomicCheckpoints
from ase_nbody.training.config import ConfigError, SourceConfig, TrainingConfig
from ase_nbody.training.folder import MODEL_NAME, last_checkpoint
from ase_nbody.training.splits import file_names, sha256_of_files

Stamp = tuple[str, int, int, int]  # path, number, size and time of the last change of a file


@dataclass(frozen=True)
class Origin:
    """Digests of the data and of the model that a training starts from, by their entries of the configuration.

    Attributes:
        digests: SHA-256 of the contents of each file, ``data.train.0``, ``data.validation.1``, ..., and of all files of
            an entry joined, ``data.train``; and the checksum of the model in ``network.start_from``. An entry that
            names no file has no digest. Earlier releases kept none for single files.
    """

    digests: Mapping[str, str]

    @classmethod
    def of(cls, config: TrainingConfig) -> "Origin":
        """Read the files once."""
        digests: dict[str, str] = {}
        for entry in ("train", "validation", "replay"):
            name, sources = f"data.{entry}", getattr(config.data, entry)
            if isinstance(sources, tuple):
                joined, single = sha256_of_files(sources)
                digests |= {f"{name}.{number}": digest for number, digest in enumerate(single)}
                digests[name] = joined
        if config.network.has_start:
            digests["network.start_from"] = read_card(str(config.network.start_from))["checksum"]
        return cls(digests)

    def in_training_and_validation(self) -> bool:
        """Whether one file, under whatever name, is among the training and among the validation files."""
        train, validation = (
            {digest for entry, digest in self.digests.items() if entry.startswith(f"data.{name}.")}
            for name in ("train", "validation")
        )
        return bool(train & validation)

    def require_same(self, begun: Mapping[str, str], config: TrainingConfig) -> None:
        """Check that a run which began with the digests ``begun`` may go on. Earlier releases kept none.

        Raises:
            ConfigError: an entry names other contents than when the run began.
        """
        for entry, digest in self.digests.items():
            if begun.get(entry, digest) != digest:
                shown = entry.removesuffix(".0") if _is_only_one(self.digests, entry) else entry
                raise ConfigError(
                    f"{shown} ({_names(entry, config)}) has other contents than when the run in {config.output} "
                    "began: put the original back, or train on the new one in another 'output'"
                )


def _is_only_one(digests: Mapping[str, str], entry: str) -> bool:
    """Whether ``data.train.0`` or the like is the only file of its entry."""
    return entry.endswith(".0") and f"{entry.removesuffix('.0')}.1" not in digests


def _names(entry: str, config: TrainingConfig) -> str:
    if entry == "network.start_from":
        return Path(str(config.network.start_from)).name
    _, name, *number = entry.split(".")
    sources = getattr(config.data, name)
    return file_names([sources[int(number[0])]] if number else sources)


def digests_of_run(folder: Path) -> dict[str, str]:
    """The digests of a run in its folder: from its checkpoint, or from the card of its model; empty if it has none.

    Raises:
        CheckpointError, ModelFileError: the file is damaged.
    """
    if last_checkpoint(folder).is_file():
        return dict(AtomicCheckpoints().load_checkpoint(last_checkpoint(folder)).get("digests", {}))
    if (folder / MODEL_NAME).is_file():
        digest = read_card(folder / MODEL_NAME)["card"].get("training data sha256")
        return {"data.train": digest} if isinstance(digest, str) else {}
    return {}


def stamps(config: TrainingConfig) -> list[Stamp]:
    """The stamps of the files with data to learn from or to validate on."""
    sources: list[SourceConfig] = [*config.data.train, *(config.data.replay or ())]
    if isinstance(config.data.validation, tuple):
        sources += config.data.validation
    return [_stamp(path) for source in sources if (path := Path(data_file(source.path, source.index)[0])).is_file()]


def stamps_of_start(config: TrainingConfig) -> list[Stamp]:
    """The stamp of the model in ``network.start_from``, if there is one.

    Raises:
        FileNotFoundError, ModelFileError: there is no such model.
    """
    return [_stamp(find_model(str(config.network.start_from)))] if config.network.has_start else []


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


def require_unchanged(before: Sequence[Stamp], now: Sequence[Stamp]) -> None:
    """Check that files are still those of ``before``, so that digests belong to what was read.

    Raises:
        DataError: a file changed since.
    """
    for stamp in set(now).symmetric_difference(before):
        raise DataError(f"{stamp[0]} changed while it was being read: wait until it is complete, and start again")
