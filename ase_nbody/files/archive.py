"""Model files ``*.nbody`` hold the weights of a network or a committee, and JSON. A stranger's file is safe to load.

What the entries of a file mean and how they are checked is in ``entries.py``.
"""

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_nbody.files.entries import (
    Energies,
    check_entries,
    check_members,
    config_of,
    energies_of,
    entries_of,
    upgraded,
)
from ase_nbody.files.heads import (
    MAX_HEADS,
    UNNAMED,
    Head,
    Heads,
    check_name,
    declared_by_heads,
    heads_of,
    in_card,
    is_name,
    of_network,
)
from ase_nbody.files.tensor_file import ModelFileError, TensorFile, pack, read_bounded, read_header
from ase_nbody.files.weights import check_declared, checksum, of_member, require_finite, stack, verified_weights
from ase_nbody.files.writing import write_whole
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.weights import undrawn_weights
from ase_nbody.text import printable
from ase_nbody.undisturbed import undisturbed

__all__ = ["ModelFileError", "load_members", "load_model", "read_card", "save_model", "shipped_models", "write_whole"]

SUFFIX = ".nbody"
_MAX_ERROR_CHARACTERS = 1000
_MAX_NAME_CHARACTERS = 300


def save_model(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    path: str | os.PathLike[str],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network and its card to ``path``. The file appears whole or not at all.

    Args:
        network: a network, or the members of a committee, which must have one configuration. Their isolated-atom
            energies may differ. The weights keep their dtype.
        path: file name, which usually ends in ``.nbody``.
        card: JSON-able description: data, theory level, errors, licence, command, ...

    Raises:
        TypeError, ValueError: the card is not JSON (an object, NaN), the network is too large for a model file, or the
            members of a committee differ in more than their weights and isolated-atom energies.
    """
    networks = [network] if isinstance(network, NBodyNetwork) else list(network)
    check_members(len(networks))
    if any(differing_entries(networks[0].config, member.config) for member in networks):
        raise ValueError("the members of a committee in one file must have one configuration; save them one by one")
    weights = stack([member.state_dict() for member in networks])
    energies = [member.config.isolated_atom_energies for member in networks]
    return write_model(Stored(networks[0].config, len(networks), weights, energies), path, card or {})


def differing_entries(first: NBodyConfig, other: NBodyConfig) -> list[str]:
    """Names of the entries in which two configurations differ that one file cannot hold together.

    Isolated-atom energies may differ, because a network that starts from another one takes them from its predictions.
    """
    alike = first.isolated_atom_energies.keys() == other.isolated_atom_energies.keys()
    free = {"isolated_atom_energies"} if alike else set()
    return [entry for entry, value in first if entry not in free and getattr(other, entry) != value]


class Stored(NamedTuple):
    """What a model file holds beside its card.

    Attributes:
        config: the configuration of all members.
        members: number of networks.
        weights: the weights by name, as the file has them: with a first axis for the members, if there are several.
        energies: isolated-atom energies of each member. The configuration has those of the first.
        heads: the heads, if there are several. Configuration and weights have the default one.
    """

    config: NBodyConfig
    members: int
    weights: Mapping[str, Tensor]
    energies: Sequence[Energies]
    heads: Heads | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of all weights."""
        return next(iter(self.weights.values())).dtype

    def with_head(self, head: Head) -> "Stored":
        """The model with this head alone."""
        config = self.config.model_copy(update={"isolated_atom_energies": dict(head.energies)})
        return Stored(config, 1, {**self.weights, **head.weights}, [head.energies])


def write_model(stored: Stored, path: str | os.PathLike[str], card: Mapping[str, Any], *, replace: bool = True) -> Path:
    """Write a model file; see ``save_model``, and ``write_whole`` for ``replace``."""
    path = Path(path)
    write_whole(path, _packed(stored, card), replace=replace)
    return path


def _packed(stored: Stored, card: Mapping[str, Any]) -> bytes:
    """The bytes of a model file; what would not be read raises."""
    config = stored.config.model_dump(mode="json")
    energies = stored.energies if any(one != stored.energies[0] for one in stored.energies) else ()
    heads = stored.heads.entry() if stored.heads else None
    weights = {**stored.weights, **(stored.heads.tensors() if stored.heads else {})}
    require_finite(weights)
    content = entries_of(config, stored.members, card, checksum(config, weights, energies), energies, heads)
    read = config_of(content)
    energies_of(content, read)
    declared_by_heads(content, read)
    return pack(weights, content)


def add_head(
    model: str | os.PathLike[str],
    name: str,
    network: NBodyNetwork,
    path: str | os.PathLike[str],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model with one more head: ``model`` as it is, and the read-outs and isolated-atom energies of a network.

    Args:
        model: file or name of a shipped model of a single network. A head of this name is replaced.
        name: name of the head.
        network: a network with the same states: in all but its read-outs it must be that of the model.
        path: the file to write.
        card: JSON-able description of the head, which the card has under ``heads`` and its name.

    Raises:
        ValueError: the name is not allowed, or that of the default head; or the states of the network are others.
        ModelFileError: the model is a committee, or together they are too large for a file.
        FileNotFoundError, ModelFileError: see ``load_model``.
    """
    return with_head(read_stored_and_card(model), str(model), name, network, path, card)


def with_head(
    below: tuple[Stored, Mapping[str, Any]],
    model: str,
    name: str,
    network: NBodyNetwork,
    path: str | os.PathLike[str],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """``add_head`` to a model that ``read_stored_and_card`` has read. ``model`` is its name in errors."""
    stored, described = _joined(below, model, name, network, card)
    return write_model(stored, path, described)


def require_head(
    below: tuple[Stored, Mapping[str, Any]], model: str, name: str, network: NBodyNetwork, card: Mapping[str, Any]
) -> None:
    """Check that ``with_head`` will succeed. A training asks before it begins, not when it has ended.

    Raises:
        ValueError, ModelFileError: see ``add_head``.
    """
    _packed(*_joined(below, model, name, network, card))


def _joined(
    below: tuple[Stored, Mapping[str, Any]],
    model: str,
    name: str,
    network: NBodyNetwork,
    card: Mapping[str, Any] | None,
) -> tuple[Stored, dict[str, Any]]:
    """A model with one more head, and its card."""
    stored, content = below
    if stored.members > 1:
        raise ModelFileError(f"{model} is a committee, and a head stands on the states of one network")
    names = NBodyNetwork.declared_read_outs(stored.config)
    weights = {key: weight.detach().cpu() for key, weight in network.state_dict().items()}
    shared = {key: weight for key, weight in stored.weights.items() if key not in names}
    alike = shared.keys() <= weights.keys() and all(
        torch.equal(weights[key], weight.to(weights[key].dtype)) for key, weight in shared.items()
    )
    if not alike or set(differing_entries(stored.config, network.config)):
        raise ValueError(f"the states of the network are not those of {model}, so that its head is none of that model")
    default, others = default_head(content), dict(stored.heads.others) if stored.heads else {}
    if check_name(name) == default:
        raise ValueError(f"{name} is the default head of {model}: give the new head another name")
    others[name] = Head(
        dict(network.config.isolated_atom_energies), {key: weights[key].to(stored.dtype) for key in names}
    )
    if len(others) >= MAX_HEADS:  # with the default one
        raise ModelFileError(f"{model} has {MAX_HEADS} heads, as many as a file may have: give the name of one of them")
    described = {**content["card"], "heads": {**in_card(content["card"]), name: dict(card or {})}}
    return stored._replace(heads=Heads(default, others)), described


def default_head(content: Mapping[str, Any]) -> str:
    """Name of the default head of a model with these entries: its card names it, if it has no other."""
    if "heads" in content:
        return str(content["heads"]["default"])
    named = content["card"].get("head")
    return named if isinstance(named, str) and is_name(named) else UNNAMED


def load_model(name: str | os.PathLike[str], head: str | None = None) -> NBodyNetwork:
    """Read a network from a file, or a shipped network by its name (``"ethanol"``). It has float64 weights in any case.

    A model may have several heads, one for each theory. ``head`` names the one to take; the default is the model's own.

    Whoever made the file, this function loads or refuses it in about a second and needs at most a few times the file's
    size in memory, because it compares and hashes everything before it builds a network.

    Raises:
        FileNotFoundError: no such file or shipped model; the message lists the shipped ones.
        PermissionError: the file may not be read.
        ModelFileError: the file is foreign, damaged, tampered with, too large, of a newer format, or a committee; or
            there is no such head, and the message lists those that there are.
    """
    members = load_members(name, head)
    if len(members) > 1:
        raise ModelFileError(
            f"{name} holds a committee of {len(members)} networks where one is expected; load_members and "
            "NBodyCalculator take it"
        )
    return members[0]


@undisturbed()
def load_members(name: str | os.PathLike[str], head: str | None = None) -> list[NBodyNetwork]:
    """Read all networks of a model file: one, or the members of a committee. Otherwise the same as ``load_model``."""
    config, count, weights, energies, _ = _read_head(name, head)
    with _errors_name(find_model(name)), undrawn_weights():
        network = NBodyNetwork(config)
    members = [network, *(copy.deepcopy(network) for _ in range(count - 1))]  # they share the constants
    for number, member in enumerate(members):
        own = {name: weight.to(torch.float64, copy=True) for name, weight in of_member(weights, number, count).items()}
        member.load_state_dict(own, strict=True, assign=True)
        if energies[number] != config.isolated_atom_energies:
            member.set_isolated_atom_energies(energies[number])
    return [member.requires_grad_(False) for member in members]


def _read_head(name: str | os.PathLike[str], head: str | None) -> Stored:
    """What a model file holds, with one of its heads; None is the default one."""
    stored, content = read_stored_and_card(name)
    default = default_head(content)
    if head is None or head == default:
        return stored
    others = stored.heads.others if stored.heads else {}
    if head not in others:
        listed = ", ".join([f"{default} (the default)", *sorted(others)])
        raise ModelFileError(f"{name} has no head {printable(head, _MAX_NAME_CHARACTERS)!r}; it has {listed}")
    return stored.with_head(others[head])


def read_stored(name: str | os.PathLike[str]) -> Stored:
    """Read and verify configuration and weights of a model file without building its networks.

    Raises:
        FileNotFoundError, PermissionError, ModelFileError: see ``load_model``.
    """
    return read_stored_and_card(name)[0]


def read_stored_and_card(name: str | os.PathLike[str]) -> tuple[Stored, dict[str, Any]]:
    """What ``read_stored`` and ``read_card`` return, of one file, even if it is replaced meanwhile."""
    path = find_model(name)
    with _errors_name(path):
        file = _read(path)
        present = upgraded(file.content)
        config, count = config_of(present), present["members"]
        check_members(count)
        declared = NBodyNetwork.declared_weights(config) | declared_by_heads(present, config)
        check_declared(declared, count, file.shapes)
        energies = energies_of(present, config) or [config.isolated_atom_energies] * count
        weights = verified_weights(file)
        return Stored(config, count, of_network(weights), energies, heads_of(present, weights)), file.content


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the entries of a model file (config, card, units, versions, ...) unchanged, and verify its checksums."""
    path = find_model(name)
    with _errors_name(path):
        file = _read(path)
        verified_weights(file)
    return file.content


def shipped_models() -> dict[str, Path]:
    """The models that come with the package, by name."""
    folder = Path(str(resources.files("ase_nbody") / "models"))
    if not folder.is_dir():  # a source checkout installed in editable mode keeps them at its top
        folder = Path(__file__).resolve().parents[2] / "models"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str | os.PathLike[str]) -> Path:
    """The path of a model file, or of a shipped model given by name."""
    path = Path(name)
    try:
        if path.is_file():
            return path
    except OSError as error:  # a name that is too long, or a folder that this user may not enter
        shown = printable(str(name), _MAX_NAME_CHARACTERS)
        raise type(error)(f"the model file {shown!r} cannot be looked for: {error.strerror}") from error
    shipped = shipped_models()
    if str(name) in shipped:
        return shipped[str(name)]
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a directory, not a model file; give the {SUFFIX} file in it")
    if path.exists():
        raise ModelFileError(f"{path} is a pipe or a device, not a model file")
    raise FileNotFoundError(f"no model file {str(name)!r}; shipped models are {', '.join(shipped) or 'none'}")


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Turn the errors of the block into errors that name the file at ``path``."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = printable(str(error), _MAX_ERROR_CHARACTERS)
        raise ModelFileError(f"{path} is not an N-body model that can be loaded: {reason}") from error


def _read(path: Path) -> TensorFile:
    """Read a file and check its entries. The weights are not verified yet."""
    file = read_header(read_bounded(path))
    check_entries(file.content)
    return file
