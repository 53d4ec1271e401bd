"""Damaged and forged model files: each is refused with our error, or loads what was saved.

``NBODY_FUZZ=10000 pytest tests/files/test_archive_fuzz.py -rP`` tries ten thousand files and prints what
became of them.
"""

import json
import os
import re
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

import ase_nbody.files.entries
import ase_nbody.files.weights
from ase_nbody.files.archive import checksum, load_members, load_model, read_card, save_model
from ase_nbody.files.entries import metadata_checksum
from ase_nbody.files.tensor_file import ModelFileError

EXAMPLES = Path(__file__).parents[1] / "example_models"
CASES = -(-int(os.environ.get("NBODY_FUZZ", "900")) // 3)  # each of bytes, texts of entries, configurations


def reason(error: ModelFileError) -> str:
    """What is wrong in a few words, the same for all files of a kind."""
    return re.split("[:'\"\\[0-9]", str(error.__cause__))[0]


class Judge:
    """Loads files, and knows what they must give if they load at all."""

    def __init__(self, folder: Path, network, card) -> None:
        self.original = save_model(network, folder / "original.nbody", card)
        self.path, self.network, self.content = folder / "case.nbody", network, read_card(self.original)
        self.outcomes, self.longest = Counter(), 0.0

    def __call__(self, payload: bytes) -> None:
        """Load a file.

        Raises:
            AssertionError: it loads as something else than the original.
            Exception: whatever loading raises beside our error.
        """
        self.path.write_bytes(payload)
        began = time.process_time()
        try:
            loaded, content = load_model(self.path), read_card(self.path)
        except ModelFileError as error:
            outcome = reason(error)
        else:
            outcome = "loads equal"
            assert content == self.content
            assert loaded.config == self.network.config
            assert loaded.state_dict().keys() == self.network.state_dict().keys()
            for name, weight in self.network.state_dict().items():
                assert torch.equal(loaded.state_dict()[name], weight), name
        finally:
            self.longest = max(self.longest, time.process_time() - began)
        self.outcomes[outcome] += 1

    def report(self) -> str:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        lines = [f"{count:6d}  {outcome}" for outcome, count in self.outcomes.most_common()]
        return "\n".join(
            [f"{self.outcomes.total()} files, {self.longest:.3f} s of CPU and {peak:.0f} MB at the most", *lines]
        )


@pytest.fixture(scope="module", params=["version_1", "version_4"])
def judge(request, tmp_path_factory):
    """Files of a network that is written as version 3, and of one with outputs, written as version 4."""
    example = EXAMPLES / f"{request.param}.nbody"
    judge = Judge(tmp_path_factory.mktemp("fuzz"), load_members(example)[0], read_card(example)["card"])
    yield judge
    print(judge.report())


def damages(payload: bytes, seed: int) -> bytes:
    """A file with flipped bits, cut short, with a piece overwritten, moved, lost or doubled, or with more behind it."""
    draw = np.random.default_rng(seed)
    header = 8 + int.from_bytes(payload[:8], "little")
    where = int(draw.integers(header if draw.random() < 0.7 else len(payload)))  # most of what means anything is there
    length = int(draw.integers(1, 40))
    damaged = bytearray(payload)
    kind = seed % 6
    if kind <= 1:
        for place in (where, *draw.integers(len(payload), size=kind)):
            damaged[place] ^= 1 << int(draw.integers(8))
    elif kind == 2:
        del damaged[where:]
    elif kind == 3:
        damaged[where : where + length] = draw.bytes(length)
    elif kind == 4:
        source = int(draw.integers(len(payload)))
        damaged[where : where + length] = payload[source : source + length]
    else:
        damaged[where:where] = payload[where : where + int(draw.integers(2)) * length] or draw.bytes(length)
    return bytes(damaged)


def test_damaged_bytes(judge):
    payload = judge.original.read_bytes()
    judge(payload)
    assert judge.outcomes["loads equal"] == 1
    for seed in range(CASES):
        judge(damages(payload, seed))


# Leaves that parsers, integers, tables of species and terminals have been seen to stumble over.
NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**12, 10**400]) | st.floats()
WORDS = st.text(max_size=5) | st.sampled_from(
    ["", "all", "charges", "outputs", "heavy", "H", "X", "\0", "\ud800", "\x1b[2J", "__proto__"]
)
ENTRIES = ["format", "config", "card", "units", "versions", "checksum", "members", "features", "metadata_checksum"]
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=8
)
FUZZED = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def forged(content, weights, texts=None) -> bytes:
    """A file whose checksums fit, unless its entries are such that they have none."""
    content = {**content, "checksum": checksum(content["config"], weights)}
    content.pop("metadata_checksum")
    content["metadata_checksum"] = metadata_checksum(content)
    return save(weights, {key: json.dumps(value) for key, value in content.items()} | (texts or {}))


@FUZZED
@given(
    key=st.sampled_from([*ENTRIES, "other"]),
    text=VALUES.map(json.dumps) | st.text(max_size=20) | st.sampled_from(["[" * 3000, '{"a":' * 20, "NaN", "9" * 5000]),
    resealed=st.booleans(),
)
def test_entries_of_any_text(judge, key, text, resealed):
    weights = load(judge.original.read_bytes())
    content, text = dict(judge.content), text.encode(errors="replace").decode()
    try:
        if resealed and key not in ("card", "versions"):  # which may be anything, so they would load
            content = {**content, key: json.loads(text)}
        payload = forged(content, weights, {key: text})
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):  # no JSON: a checksum it cannot have
        payload = forged(judge.content, weights, {key: text})
    judge(payload)


@st.composite
def changes(draw, config):
    """The configuration with one of its entries changed, lost or joined by another."""
    level = draw(st.sampled_from([None, *range(len(config["levels"]))]))
    config = json.loads(json.dumps(config))
    target = config if level is None else config["levels"][level]
    key = draw(st.sampled_from([*target, "other"]))
    if draw(st.booleans()):
        target[key] = draw(VALUES)
    else:
        target.pop(key, None)
    return config


@FUZZED
@given(data=st.data())
def test_configurations_of_any_content(judge, data):
    """Forged with a checksum that fits: what loads has the weights' shapes, and is not compared with the original."""
    config = data.draw(changes(judge.content["config"]))
    judge.path.write_bytes(forged({**judge.content, "config": config}, load(judge.original.read_bytes())))
    began = time.process_time()
    try:
        shapes = {name: weight.shape for name, weight in load_model(judge.path).state_dict().items()}
        assert shapes == {name: weight.shape for name, weight in judge.network.state_dict().items()}
        judge.outcomes["loads, forged with checksums that fit"] += 1
    except ModelFileError as error:
        judge.outcomes[reason(error)] += 1
    judge.longest = max(judge.longest, time.process_time() - began)


@pytest.mark.parametrize("broken", ["checksum", "metadata_checksum"])
def test_a_reader_that_trusts_is_caught(broken, judge, monkeypatch):
    """The judge itself: without a checksum some damage goes unnoticed by all other checks, and is found here."""
    module = ase_nbody.files.weights if broken == "checksum" else ase_nbody.files.entries
    monkeypatch.setattr(module, broken, lambda *arguments: judge.content[broken])
    payload = judge.original.read_bytes()
    last = bytearray(payload)
    last[-8] ^= 1  # the least significant bit of a weight
    with pytest.raises(AssertionError):
        judge(last if broken == "checksum" else payload.replace(b"random weights", b"ordered weight"))
