"""The form of ``*.lammps`` files, which ``plugin/nbody_file.cpp`` reads: lines of text, then weights and machine code.

    nbody.lammps 1 CRC                                  the CRC-32 of all that follows
    torch 2.13.0                                        what the machine code was compiled with ...
    capability AVX2                                     ... and for
    dtype float64
    atom H -13.6                                        each species in order, and its energy alone in eV
    level RADIUS PARTS CHILDREN COMPONENTS CHANNELS BLOCK    each level, the lowest first
    weight 8 32                                         the shape of each weight
    member BYTES                                        weights of each network of the committee, in that order
    code up-0 BYTES                                     a shared library for each step of a block
    end

PARTS and CHILDREN have a digit for each species, 1 where its atoms are centres. BLOCK is the number of parts that are
evaluated in one call. After ``end`` come the bytes that the lines ``member`` and ``code`` announce, in their order.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ase_nbody.hierarchy.build import members
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.blocks import BLOCK_PARTS

MAGIC = "nbody.lammps 1 "


def packed(networks: Sequence[NBodyNetwork], code: Mapping[str, bytes]) -> bytes:
    """The content of a file.

    Args:
        networks: the members of a committee, or one network, in their final dtype.
        code: the shared libraries by the names of the steps: ``up-0``, ``down-0``, ...
    """
    first = networks[0]
    weights = [_bytes_of(network) for network in networks]
    lines = [
        f"torch {torch.__version__}",
        f"capability {torch.backends.cpu.get_cpu_capability()}",
        f"dtype {str(first.dtype).removeprefix('torch.')}",
        *_atoms(networks),
        *_levels(first),
        *(" ".join(["weight", *map(str, weight.shape)]) for weight in first.parameters()),
        *(f"member {len(one)}" for one in weights),
        *(f"code {name} {len(library)}" for name, library in code.items()),
        "end\n",
    ]
    body = b"".join(["\n".join(lines).encode(), *weights, *code.values()])
    return f"{MAGIC}{zlib.crc32(body):08x}\n".encode() + body


def _atoms(networks: Sequence[NBodyNetwork]) -> list[str]:
    """The energies of isolated atoms; their mean over the members of a committee."""
    energies = np.mean([network.isolated_atoms.exact("energy") for network in networks], axis=0)
    pairs = zip(networks[0].config.species, energies.tolist(), strict=True)
    return [f"atom {symbol} {energy!r}" for symbol, energy in pairs]


def _levels(network: NBodyNetwork) -> list[str]:
    """What makes the parts of each level, and the type of their states. One atom of each species tells."""
    numbers = network.one_hot.argmax(0).numpy()
    lines = []
    chosen = zip(members(numbers, network.config.layout), network.config.levels, network.taus[1:], strict=True)
    for number, (masks, level, tau) in enumerate(chosen):
        block = BLOCK_PARTS["cpu"][min(number, 1)]
        parts, children = ("".join(str(int(flag)) for flag in mask) for mask in (masks.above, masks.children))
        lines.append(f"level {level.radius!r} {parts} {children} {tau.components} {tau.channels} {block}")
    return lines


def _bytes_of(network: NBodyNetwork) -> bytes:
    """The weights of a network one after the other, in the memory order that the machine code needs."""
    return b"".join(np.ascontiguousarray(weight.numpy(force=True)).tobytes() for weight in network.parameters())
