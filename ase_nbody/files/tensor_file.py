"""Files of tensors and JSON, read as if a stranger had made them: nothing is executed, time and memory are bounded.

The layout is that of safetensors (huggingface.co/docs/safetensors). Eight bytes hold the length of a header. The header
is JSON and holds the type, shape and place of each tensor, and named strings under ``__metadata__``; here each of these
strings is JSON again. The bytes of the tensors follow.

The library safetensors reads the tensors. This file adds what the library leaves open: which files are opened at all,
how large they may be, and that JSON means the same to every reader (no duplicate keys, no NaN, no deep nesting). It
knows nothing about networks.
"""

import json
import math
import operator
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

MAX_FILE_BYTES = 512 * 2**20  # over three times a committee of 64 of our largest models
MAX_HEADER_BYTES = 8 * 2**20  # holds the errors of a committee of 64 on each of 118 elements
MAX_JSON_VALUES = 300_000  # in the header, as its brackets and commas tell: an object of Python takes up to 300 bytes
MAX_JSON_DEPTH = 16  # levels of brackets
MAX_AXES = 8  # of a tensor; the product of thousands of long sizes would take minutes
DTYPES = {"F32": torch.float32, "F64": torch.float64}


class ModelFileError(ValueError):
    """The file is not a model that this release can read; the message says why and what to do."""


def read_bounded(path: Path) -> bytes:
    """Read a regular file of at most ``MAX_FILE_BYTES`` bytes. Later changes of the file do not affect the result.

    Raises:
        OSError: the file does not exist, or this user may not read it, or the disk fails.
        ModelFileError: the file is too large, or it is a pipe or a device.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{path} is a pipe or a device; give a model file")
            payload = file.read(status.st_size + 1) if status.st_size <= MAX_FILE_BYTES else b""
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read by this user; ask its owner for permission to read") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}). Check the disk, or copy the file again.") from error
    size = max(status.st_size, len(payload))
    if size > MAX_FILE_BYTES:
        raise ModelFileError(
            f"{path} has {size / 2**20:,.0f} MiB; a model file has at most {MAX_FILE_BYTES / 2**20:.0f} MiB"
        )
    return payload


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # without it, opening a pipe would wait for a writer


def check_room(tensor_bytes: int, header_bytes: int) -> None:
    """Refuse what would not fit into a file.

    Raises:
        ModelFileError: the tensors or the header are too large.
    """
    if tensor_bytes + header_bytes > MAX_FILE_BYTES:
        raise ModelFileError(
            f"its weights take {tensor_bytes / 2**20:,.0f} MiB, and a model file holds {MAX_FILE_BYTES / 2**20:.0f} "
            "MiB: take fewer channels, or fewer members of a committee"
        )
    if header_bytes > MAX_HEADER_BYTES:
        raise ModelFileError(
            f"its card and configuration take about {header_bytes:,} bytes, and a model file holds "
            f"{MAX_HEADER_BYTES:,}: shorten the card"
        )


def pack(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> bytes:
    """The bytes of a file with these tensors and JSON-able entries. ``unpack`` accepts them.

    Raises:
        TypeError: an entry has a type that JSON does not know.
        ValueError: an entry holds NaN or infinity, or is nested too deep.
    """
    metadata = {key: json.dumps(value, allow_nan=False) for key, value in content.items()}
    payload = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, metadata)
    unpack(payload)
    return payload


@dataclass(frozen=True)
class TensorFile:
    """A file of which only the header has been read.

    Attributes:
        content: the parsed entries.
        shapes: the shape of each tensor, by name.
        dtype: the type of all tensors.
        payload: the bytes of the file.
    """

    content: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    dtype: torch.dtype
    payload: bytes

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, as copies.

        Raises:
            ModelFileError: the header announces fewer or more bytes than there are.
        """
        try:
            return load(self.payload)
        except (SafetensorError, RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise ModelFileError(f"its tensors cannot be read: {error}") from error


def unpack(payload: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The parsed entries and the tensors of a file. All tensors have the same dtype, one of ``DTYPES``.

    Raises:
        ModelFileError: the bytes are not such a file, or the header announces fewer or more bytes.
    """
    file = read_header(payload)
    return file.content, file.tensors()


def read_header(payload: bytes) -> TensorFile:
    """The parsed header of a file, from which a caller can tell what its tensors would take.

    Raises:
        ModelFileError: the bytes are not such a file.
    """
    length = int.from_bytes(payload[:8], "little")
    if len(payload) < 8 or length > len(payload) - 8:
        raise ModelFileError("it ends within its header. It was cut short, or it is a file of another kind.")
    if length > MAX_HEADER_BYTES or len(payload) > MAX_FILE_BYTES:
        raise ModelFileError(
            f"it has {len(payload):,} bytes, {length:,} of them in the header; "
            f"at most {MAX_FILE_BYTES:,} and {MAX_HEADER_BYTES:,} are allowed"
        )
    try:
        text = payload[8 : 8 + length].decode()
        check_values([text])
        header = parse_json(text)
        raw = header.pop("__metadata__", {})
        check_values(raw.values())  # once more, because a header may write their brackets as escapes
        content = {key: parse_json(value) for key, value in raw.items()}
        found = {entry["dtype"] for entry in header.values()}
        shapes = {name: _shape(entry["shape"]) for name, entry in header.items()}
    except ModelFileError:
        raise
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ModelFileError(f"its header is not one of safetensors with JSON entries: {error}") from error
    if len(found) != 1 or not found <= DTYPES.keys():
        raise ModelFileError(
            f"it must hold weights of one floating-point type ({' or '.join(DTYPES)}), "
            f"but it holds {', '.join(sorted(map(str, found))) or 'none'}"
        )
    return TensorFile(content, shapes, DTYPES[found.pop()], payload)


def check_values(texts: Iterable[str]) -> None:
    """Refuse JSON of more values than a header may have, before it is parsed. Brackets and commas tell their number."""
    if sum(text.count(sign) for text in texts for sign in "[{,") > MAX_JSON_VALUES:
        raise ModelFileError(f"its header has more than {MAX_JSON_VALUES:,} values")


def _shape(sizes: Any) -> tuple[int, ...]:
    """The sizes of a tensor, none of them larger than a file."""
    shape = tuple(map(operator.index, sizes[: MAX_AXES + 1]))
    if len(shape) > MAX_AXES or not all(0 <= size <= MAX_FILE_BYTES for size in shape):
        raise ValueError(f"a tensor has more than {MAX_AXES} axes, or sizes that no file could hold")
    return shape


def parse_json(text: str) -> Any:
    """Parse JSON, and accept only what means the same to every reader.

    Raises:
        ValueError: the text is not JSON, or has a key twice in one object, NaN, infinity, or more than
            ``MAX_JSON_DEPTH`` levels of brackets.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected text, got {type(text).__name__}")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None
    _check_depth(value, MAX_JSON_DEPTH)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one JSON object")
    return found


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"the number {number[:20]} is not finite")
    return value


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise ValueError(f"brackets are nested deeper than {MAX_JSON_DEPTH} levels")
        for member in value.values() if isinstance(value, dict) else value:
            _check_depth(member, left - 1)
