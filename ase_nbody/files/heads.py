"""Heads: several theories in one model file, each with its own read-outs and isolated-atom energies on shared states.

The read-outs of the first head, the default one, are weights of the network as in any file. The entry ``heads`` names
all heads,

    {"default": "wB97M-D3", "others": {"PBE": {"H": -13.6, "O": -428.1}}}

and the n-th of the others, sorted by name, has the tensors ``other_heads.n.levels.0.read_out.linear`` and so on. A
network in memory has one head: whoever reads the file chooses it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ase_nbody.files.entries import are_energies
from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.weights import Weight

UNNAMED = "default"  # the first head of a model whose card names none
MAX_HEADS = 16
MAX_CHARACTERS = 60  # of a name
Energies = Mapping[str, float]


@dataclass(frozen=True)
class Head:
    """What a head has of its own.

    Attributes:
        energies: isolated-atom energies in eV, by chemical symbol.
        weights: those of the read-outs, by the names that they have in the network.
    """

    energies: Energies
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Heads:
    """The heads of a model file.

    Attributes:
        default: name of the head that the network has.
        others: all others, by name.
    """

    default: str
    others: Mapping[str, Head]

    @property
    def names(self) -> list[str]:
        """All names, the default first."""
        return [self.default, *sorted(self.others)]

    def entry(self) -> dict[str, Any]:
        """The entry ``heads`` of the file."""
        return {"default": self.default, "others": {name: dict(head.energies) for name, head in self.others.items()}}

    def tensors(self) -> dict[str, Tensor]:
        """The weights of the other heads, by the names that they have in the file."""
        pairs = [(_prefix(number), self.others[name]) for number, name in enumerate(sorted(self.others))]
        return {prefix + name: weight for prefix, head in pairs for name, weight in head.weights.items()}


def is_name(name: str) -> bool:
    """Whether a head can have this name."""
    return name == name.strip() and 0 < len(name) <= MAX_CHARACTERS and name.isprintable()


def check_name(name: str) -> str:
    """The name of a head, if it can be one.

    Raises:
        ValueError: it is empty, too long, or has other characters than printable ones.
    """
    if not is_name(name):
        raise ValueError(f"the name of a head has 1 to {MAX_CHARACTERS} printable characters, and no blank at its ends")
    return name


def in_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of each head, by name: nothing if a stranger has written something else under ``heads``."""
    said = card.get("heads")
    return dict(said) if isinstance(said, Mapping) else {}


def declared_by_heads(content: Mapping[str, Any], config: NBodyConfig) -> dict[str, Weight]:
    """The weights of the other heads of a file by their names in it, without reading them.

    Raises:
        ModelFileError: the entry ``heads`` is malformed.
    """
    if "heads" not in content:
        return {}
    _check_entry(content["heads"], content["members"], config)
    own = NBodyNetwork.declared_read_outs(config)
    return {_prefix(n) + name: weight for n in range(len(content["heads"]["others"])) for name, weight in own.items()}


def heads_of(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Heads | None:
    """The heads of a file whose entries and weights are checked; None if it has only one."""
    if "heads" not in content:
        return None
    entry, others = content["heads"], {}
    for number, name in enumerate(sorted(entry["others"])):
        prefix = _prefix(number)
        own = {key.removeprefix(prefix): weight for key, weight in weights.items() if key.startswith(prefix)}
        others[name] = Head(entry["others"][name], own)
    return Heads(entry["default"], others)


def of_network(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the network with its default head, without those of other heads."""
    return {name: weight for name, weight in weights.items() if not name.startswith(_PREFIX)}


_PREFIX = "other_heads."


def _prefix(number: int) -> str:
    return f"{_PREFIX}{number}."


def _check_entry(entry: Mapping[str, Any], members: int, config: NBodyConfig) -> None:
    if members > 1:
        raise ModelFileError("it is a committee and has several heads, which this release does not know")
    for fault in _faults(entry, config):
        raise ModelFileError(f"its entry 'heads' {fault}")


def _faults(entry: Mapping[str, Any], config: NBodyConfig) -> Iterator[str]:
    """What is wrong with the entry, in words."""
    if entry.keys() != {"default", "others"} or not isinstance(entry["others"], dict):
        yield "does not say which head is the default and which there are"
        return
    names = [entry["default"], *entry["others"]]
    if not 2 <= len(names) <= MAX_HEADS or not all(isinstance(name, str) for name in names):
        yield f"does not name 2 to {MAX_HEADS} heads"
        return
    if len({*names}) < len(names):
        yield "has the default head twice"
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            yield f"is not right: {error}"
    for energies in entry["others"].values():
        if not isinstance(energies, dict) or energies.keys() != config.isolated_atom_energies.keys():
            yield "does not give each head the isolated-atom energies of the species that have one"
            return
        if not are_energies(energies):
            yield "has isolated-atom energies that are no numbers"
