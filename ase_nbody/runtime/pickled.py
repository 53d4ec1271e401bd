"""Networks and settings as bytes, for pickles. Equal ones give equal bytes, whatever was computed with them.

The pickle of a tensor holds the address of its memory, and that of an object tells which of its strings are one and the
same. Caches that hash pickles (joblib, dask) would then never find anything again.

    8 bytes: length of the header | header: JSON | weights of all networks: safetensors
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
from safetensors.torch import load, save

from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.settings import DTYPES, Settings
from ase_nbody.undisturbed import undisturbed


@undisturbed()
def to_bytes(networks: Sequence[NBodyNetwork], settings: Settings) -> bytes:
    """The bytes of frozen networks, in any mixture of configurations, and of the settings."""
    header = {
        "settings": asdict(settings),
        "configs": [network.config.model_dump(mode="json") for network in networks],
    }
    weights = {
        f"{number}.{name}": weight.detach().cpu().contiguous()
        for number, network in enumerate(networks)
        for name, weight in network.state_dict().items()
    }
    text = json.dumps(header, sort_keys=True).encode()
    return len(text).to_bytes(8, "little") + text + save(weights)


@undisturbed()
def from_bytes(payload: bytes) -> tuple[list[NBodyNetwork], Settings]:
    """The networks, on the CPU, and the settings. No weight needs gradients."""
    end = 8 + int.from_bytes(payload[:8], "little")
    header, weights = json.loads(payload[8:end]), load(payload[end:])
    settings, networks = Settings(**header["settings"]), []
    for number, config in enumerate(header["configs"]):
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            network = NBodyNetwork(NBodyConfig(**config)).to(DTYPES[settings.dtype])
        prefix = f"{number}."
        own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        network.load_state_dict(own, strict=True)
        networks.append(network.requires_grad_(False))
    return networks, settings
