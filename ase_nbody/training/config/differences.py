"""Where two configurations differ, in entries that the result of a training depends on."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ase_nbody.training.config.data import FILES
from ase_nbody.training.config.training import TrainingConfig

# The result does not depend on these entries. Files are known by their contents, not by their paths, and the entries
# of a preset are compared one by one.
_FREE = ("preset", "output", "report", "wandb", "data.workers", "data.memory", "data.test", "pretraining.folder")


class Difference(NamedTuple):
    """An entry that differs: its full name, its value now, and its value when the run began."""

    entry: str
    now: Any
    before: Any

    def __str__(self) -> str:
        return f"{self.entry} is {_shown(self.now)} and was {_shown(self.before)}"


def differences(config: TrainingConfig, begun: TrainingConfig) -> list[Difference]:
    """The entries in which ``config`` differs from the configuration ``begun`` with which a run began."""
    now, before = dict(_entries(config)), dict(_entries(begun))
    names = [name for name in {**now, **before} if not _is_free(name)]
    return [Difference(name, now.get(name), before.get(name)) for name in names if now.get(name) != before.get(name)]


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in _FREE)


def _entries(config: TrainingConfig) -> Iterator[tuple[str, Any]]:
    """All entries by their full names; files stand there without their paths."""
    content = config.model_dump()
    for name in FILES:
        sources = getattr(config.data, name)
        if isinstance(sources, tuple):
            content["data"][name] = [source.model_dump(exclude={"path"}) for source in sources]
    content["network"]["start_from"] = "a model" if config.network.has_start else config.network.start_from
    yield from _leaves(content, "")


def _leaves(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple) and content:
        for number, value in enumerate(content):
            yield from _leaves(value, f"{name}.{number}")
    else:
        yield name, content


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
