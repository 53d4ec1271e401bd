"""The key of compiled code: code is used again exactly where compiling would give the same code."""

import hashlib
import json

import torch

from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.processor import processor_key
from ase_nbody.runtime.sources import own_sources


def library_key(network: NBodyNetwork) -> str:
    """The key of a network's compiled code: 32 hexadecimal digits.

    It depends on the configuration (every number of it becomes a constant of the code, but for those of the coverage),
    dtype, device, processor, version of torch, and ``SOURCES``.

    Raises:
        RuntimeError: see ``own_sources``.
    """
    from ase_nbody.runtime import vector_steps  # noqa: F401  # all of ``SOURCES`` must be loaded; see ``own_sources``

    device = network.one_hot.device
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    digest = hashlib.sha256(
        json.dumps(network.config.model_dump(mode="json", exclude={"coverage"}), sort_keys=True).encode()
    )
    digest.update(f"{network.dtype} {device} {card} {processor_key()} {torch.__version__}".encode())
    digest.update(own_sources())
    return digest.hexdigest()[:32]
