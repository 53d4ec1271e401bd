"""A stranger's YAML is read or refused in a sentence, in bounded time and memory."""

import resource
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.config.bounded_yaml import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, YamlError, parse_yaml

LAUGHS = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
MERGES = "a: &a0 {x: 1}\n" + "".join(
    f"b{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 12)
)
BOMBS = {
    "brackets": ("[" * 5000, "line 1: it is nested deeper than 20 levels"),
    "braces": ("{a: " * 5000, "nested deeper"),
    "indentation": ("\n".join(" " * depth + "a:" for depth in range(300)), "nested deeper"),
    "list of lists": ("- " * 400 + "a", "nested deeper"),
    "aliases": (LAUGHS, "more than 50,000 values"),
    "merges": (MERGES, "more than 50,000 values"),
    "values": ("[" + "1," * MAX_VALUES + "]", "more than 50,000 values"),
    "itself": ("a: &a [*a]", "the alias 'a' stands for nothing before it"),
    "size": ("a" * (MAX_CHARACTERS + 1), "1,048,577 characters"),
    "digits": ("a: " + "1" * 5000, "line 1: a number has 5000 digits"),
    "hexadecimal": ("a: 0x" + "f" * 500_000, "a number has 500002 digits"),
    "sexagesimal": ("a: 1" + ":1" * 300_000, "a number has 600001 digits"),
    "tagged sexagesimal": ('a: !!int "1' + ":1" * 300_000 + '"', "a number has 600001 digits"),
    "tagged hexadecimal": ('a: !!int "0x' + "f" * 500_000 + '"', "a number has 500002 digits"),
    "tagged float": ('a: !!float "1' + ":1" * 300_000 + '"', "a number has 600001 digits"),
    "own tag": ("%TAG !y! tag:yaml.org,2002:\n---\na: !y!int 1" + ":1" * 300_000, "a number has 600001 digits"),
    "spaces": ('a: !!int " 1' + ":1" * 300_000 + '"', "a number has 600002 digits"),
    "date": ("a: !!timestamp 2026-13-01", "has not the form of its type"),
    "boolean": ("a: !!bool 3", "has not the form of its type"),
    "base 60": ("a: !!int 1:30", "has not the form of its type"),
    "timestamp": ("a: !!timestamp 3", "has not the form of its type"),
    "object": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "twice": ("a: 1\nb: 2\na: 3", "line 3: the entry 'a' occurs twice"),
    "twice by an alias": ("&x a: 1\nb: 2\n*x : 3", "line 3: the alias 'x' stands for a name of an entry"),
    "nul": ('a: "x\\0"', "has a character that no file can hold"),
    "surrogate": ('a: "\\ud800"', "has a character that no file can hold"),
    "escape": ('"\\e[2J": 1\n"\\e[2J": 2', r"the entry '\\x1b[2J' occurs twice"),
    "key": ("? [a]\n: 1", "unhashable key"),
    "tab": ("a:\n\t- 1", "line 2"),
    "control": ("a: \x1b[2J", "special characters are not allowed"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name):
    text, message = BOMBS[name]
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert time.process_time() - began < 5.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


@pytest.mark.parametrize("name", ["brackets", "aliases", "digits", "tagged hexadecimal", "date"])
def test_a_configuration_and_an_override_refuse_them(name, tmp_path):
    path, (text, message) = tmp_path / "config.yaml", BOMBS[name]
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml is not valid YAML: ") as caught:
        TrainingConfig.from_yaml(path)
    assert message in str(caught.value)
    path.write_text("data: {train: a}\n")
    with pytest.raises(ConfigError, match=r"^card\.x=.*: the value is not YAML \("):
        TrainingConfig.from_yaml(path, [f"card.x={text}"])


@pytest.mark.parametrize("name", BOMBS)
def test_the_configuration_that_a_run_wrote_is_bounded_too(name, tmp_path):
    """It may have been exchanged before the run is resumed."""
    (tmp_path / "config.yaml").write_bytes(BOMBS[name][0].encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match="is not the configuration that a run wrote there"):
        TrainingConfig.as_written(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: &a [b, b, b, b]\ncard: {x: [*a, *a, *a]}", "card.x: should be text$"),
        ("data: {train: a}\ntraining: {device: 1, seed: '\x85" + "x" * 10**5 + "'}", r"training.seed: .*x\.\.\.$"),
        ('data: {train: a}\n"\\e[2J": 1', r"\\x1b\[2J is not an entry"),
        ("data: {train: a}\n1: 2", "1"),
        ("data: {train: a}\npreset: ../presets/small", "preset: should be 'small', 'medium', 'large' or 'kondor'"),
        ("data: {train: a}\npreset: " + "x" * 5000, "preset: should be 'small', 'medium', 'large' or 'kondor'"),
        ("data: {train: a}\ncard: {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}", "; and 980 more$"),
    ],
)
def test_what_is_wrong_is_shown_in_bounded_length(text, message, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        TrainingConfig.from_yaml(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(
    "override",
    [
        "network.levels.²=1",
        "network.levels.99999999999999999999=1",
        f"network.levels.{'1' * 5000}.radius=4",
        "card.x.y=1",
        "=1",
    ],
)
def test_overrides_of_no_place(override, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {train: a}\n")
    with pytest.raises(ConfigError):
        TrainingConfig.from_yaml(path, [override])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("No", "No"),  # nobelium; "no", "off" and "yes" are words as well, which an entry of true or false takes
        ("off", "off"),
        ("1:30", "1:30"),  # frames 1 to 29
        ("1:30.5", "1:30.5"),
        ("012", 12),
        ("-012", -12),
        ("2026-11-30", "2026-11-30"),
        ("true", True),
        ("FALSE", False),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1.5e-3", 1.5e-3),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("~", None),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text, value):
    """In YAML 1.1, ``No`` is false, 1:30 is 90, 012 is 10, and a day is no text."""
    found = parse_yaml(text)
    assert (found, type(found)) == (value, type(value))


def test_configurations_with_such_values(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "data: {train: {path: a.xyz, index: 1:30}, isolated_atom_energies: {No: -1.0}}\n"
        "card: {date: 2026-11-30}\nreport: off\n"
    )
    (tmp_path / "a.xyz").touch()
    config = TrainingConfig.from_yaml(path, ["training.epochs=012"])
    assert config.data.train[0].index == "1:30"
    assert config.data.isolated_atom_energies == {"No": -1.0}
    assert (config.card, config.report, config.training.epochs) == ({"date": "2026-11-30"}, False, 12)
    with pytest.raises(ConfigError, match=r"training\.epochs: should be a whole number, got '1:30'"):
        TrainingConfig.from_yaml(path, ["training.epochs=1:30"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(content=VALUES)
def test_what_is_allowed_is_read_as_yaml(content):
    text = yaml.safe_dump(content)
    if "\\0" not in text:
        assert parse_yaml(text) == yaml.safe_load(text) == content


def test_anchors_serve_as_they_should():
    """Two levels that are alike need not be written twice."""
    text = "base: &base {channels: 8}\nlevels: [*base, {<<: *base, l_max: 1}]"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert MAX_DEPTH >= 10
