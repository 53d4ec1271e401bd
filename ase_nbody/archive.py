"""Model files ``*.nbody``: one safetensors file, its metadata JSON. Nothing in it is ever executed or unpickled.

Metadata keys, each a JSON string: ``format`` (the integer version), ``config`` (``NBodyConfig``), ``card`` (what the
model is: data, theory, errors, licence, ...), ``units``, ``versions`` (packages that wrote it), ``checksum`` (SHA-256
of config and weights).
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ase_nbody.network import NBodyConfig, NBodyNetwork

FORMAT_VERSION = 1
UNITS = {"energy": "eV", "length": "Angstrom"}
SUFFIX = ".nbody"


class ModelFileError(ValueError):
    """A file that is not a model we can read; the message says why and what to do."""


def save_model(network: NBodyNetwork, path: str | os.PathLike[str], card: Mapping[str, Any] | None = None) -> Path:
    """Write a network and its card to ``path``. The file appears whole or not at all.

    Args:
        network: the network; weights are stored in their dtype.
        path: file name, by custom ending in ``.nbody``.
        card: JSON-able description: data, theory level, errors, licence, command, ...
    """
    path = Path(path)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    config = network.config.model_dump(mode="json")
    content = {
        "format": FORMAT_VERSION,
        "config": config,
        "card": dict(card or {}),
        "units": UNITS,
        "versions": {package: metadata.version(package) for package in ("torch", "e3nn", "ase", "numpy")},
        "checksum": checksum(config, weights),
    }
    payload = save(weights, metadata={key: json.dumps(value) for key, value in content.items()})
    write_whole(path, payload)
    return path


def write_whole(path: Path, payload: bytes) -> None:
    """Replace the file at ``path`` by ``payload`` atomically: a killed or full disk leaves the old file as it was."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def checksum(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the configuration, as the file has it, and every weight (name, dtype, shape, bytes)."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def load_model(name: str | os.PathLike[str]) -> NBodyNetwork:
    """Read a network, in float64 whatever the file holds, from a file or a shipped one by its name (``"ethanol"``).

    Raises:
        FileNotFoundError: no such file or shipped model; the message lists the shipped ones.
        ModelFileError: the file is foreign, damaged, tampered with, or of a newer format.
    """
    path = find_model(name)
    content, weights = _read(path)
    config = _config(path, content)
    if content.get("units") != UNITS:
        raise ModelFileError(f"{path} has the units {content.get('units')}; this release reads {UNITS}")
    dtypes = {weight.dtype for weight in weights.values()}
    if len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        found = ", ".join(sorted(map(str, dtypes)))
        raise ModelFileError(f"{path}: weights of one floating-point type (float32, float64) expected, found {found}")
    if content.get("checksum") != checksum(content["config"], weights):
        raise ModelFileError(f"{path} is damaged: its checksum does not match its contents. Fetch or train it anew.")
    # Drawing the initial weights, which are overwritten, must not advance the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        network = NBodyNetwork(config)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelFileError(f"{path}: the weights do not fit the configuration: {error}") from error
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelFileError(f"{path}: a weight is NaN or infinite. The training diverged; train it anew.")
    return network.requires_grad_(False)


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a model file: config, card, units, versions, checksum, format."""
    return _read(find_model(name), weights=False)[0]


def shipped_models() -> dict[str, Path]:
    """The models that come with the package, by name."""
    folder = Path(str(resources.files("ase_nbody") / "models"))
    if not folder.is_dir():  # a source checkout installed in editable mode keeps them at its top
        folder = Path(__file__).resolve().parent.parent / "models"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str | os.PathLike[str]) -> Path:
    """The path of a model file, or of a shipped model given by name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_models()
    if str(name) in shipped:
        return shipped[str(name)]
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a directory, not a model file; give the {SUFFIX} file in it")
    raise FileNotFoundError(f"no model file {str(name)!r}; shipped models are {', '.join(shipped) or 'none'}")


def _read(path: Path, weights: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata, parsed, and tensors of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            raw = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118
        content = {key: json.loads(value) for key, value in raw.items()}
    except (SafetensorError, json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is not a readable N-body model file: {error}") from error
    version = content.get("format")
    if not isinstance(version, int) or "config" not in content:
        raise ModelFileError(f"{path} is a safetensors file, but not an N-body model: it has no format or config entry")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}; this release reads up to {FORMAT_VERSION}. Update ase-nbody."
        )
    return content, tensors


def _config(path: Path, content: Mapping[str, Any]) -> NBodyConfig:
    try:
        return NBodyConfig.model_validate(content["config"])
    except ValidationError as error:
        raise ModelFileError(f"{path}: the configuration inside is not valid: {error}") from error
