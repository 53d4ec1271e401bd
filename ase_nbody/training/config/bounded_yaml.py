"""YAML in bounded time and memory: a file of one kilobyte may stand for gigabytes, by aliases of aliases.

Plain values mean what they mean in YAML 1.2. In YAML 1.1, which PyYAML reads, ``No`` (nobelium) is false, ``1:30`` is
90, ``012`` is 10, and a day is no text.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from ase_nbody.text import printable

MAX_CHARACTERS = 2**20
MAX_DEPTH = 20  # levels of brackets or indentation; a configuration has six
MAX_VALUES = 50_000  # with each alias counted as what it stands for
_LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxXoO_:.]{99,}")
_MAX_DIGITS = 100  # also of what a tag such as !!int calls a number
_BOOLEAN, _INTEGER, _FLOAT, _TIME = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp"))
_NUMBERS = (_INTEGER, _FLOAT)
# What takes the place of PyYAML's own forms: no words but these, no numbers of base 60, no zero that changes the base.
_FORMS = {
    _BOOLEAN: (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    _INTEGER: (r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    _FLOAT: (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}


class YamlError(ValueError):
    """A text is not YAML, or not YAML that a configuration can hold; the message says in which line."""


def parse_yaml(text: str) -> Any:
    """The content of a text.

    Raises:
        YamlError: it is not valid, it is too large or nested too deep, an entry occurs twice in one mapping, or it has
            text that no file system can hold.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"it has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    try:
        _check(text)
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except YamlError:
        raise
    except yaml.YAMLError as error:
        raise YamlError(printable(" ".join(str(error).split()), 300)) from error
    # What PyYAML raises for values that have a tag but not its form, such as !!bool 3 or 2026-13-01.
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise YamlError(f"a value has not the form of its type ({printable(error, 100)})") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the plain values of YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own name and form
        first: [(tag, form) for tag, form in forms if tag not in (*_FORMS, _TIME)]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number: decimal, or with 0b or 0x before it."""
        digits = str(self.construct_scalar(node)).replace("_", "")
        return int(digits, 0 if digits.lstrip("-+")[:2] in ("0b", "0x") else 10)


for _tag, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_form})\Z"), list(_first))
_Loader.add_constructor(_INTEGER, _Loader.construct_yaml_int)


class _Open:
    """A list or mapping that is being read: its name, its number of values so far, its keys, and what comes next."""

    def __init__(self, anchor: str | None, *, is_mapping: bool) -> None:
        self.anchor, self.is_mapping = anchor, is_mapping
        self.size, self.n_children = 1, 0
        self.keys: set[Hashable] = set()

    @property
    def expects_key(self) -> bool:
        return self.is_mapping and self.n_children % 2 == 0


def _check(text: str) -> None:
    """Refuse a text by its events, from which nothing has been built yet."""
    open_: list[_Open] = [_Open(None, is_mapping=False)]
    sizes: dict[str, int] = {}  # of what the anchors name
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Open(event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent)))
            if len(open_) > MAX_DEPTH + 1:
                raise YamlError(f"line {line}: it is nested deeper than {MAX_DEPTH} levels")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            done = open_.pop()
            size, anchor = done.size, done.anchor
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise YamlError(f"line {line}: the alias {printable(event.anchor, 50)!r} stands for nothing before it")
            if open_[-1].expects_key:  # it may repeat an entry in disguise
                raise YamlError(f"line {line}: the alias {printable(event.anchor, 50)!r} stands for a name of an entry")
            size, anchor = sizes[event.anchor], None
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event, line, open_[-1])
            size, anchor = 1, event.anchor
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        open_[-1].size += size
        open_[-1].n_children += 1
        if open_[-1].size > MAX_VALUES:
            raise YamlError(f"line {line}: it has more than {MAX_VALUES:,} values")


def _check_scalar(event: yaml.ScalarEvent, line: int, around: _Open) -> None:
    """Refuse a key that occurs twice, a number of more than a hundred digits, and text that cannot be written."""
    if around.expects_key and event.value != "<<":
        if event.value in around.keys:
            raise YamlError(f"line {line}: the entry {printable(event.value, 100)!r} occurs twice")
        around.keys.add(event.value)
    tagged = event.tag in _NUMBERS and len(event.value) > _MAX_DIGITS
    if tagged or (event.implicit[0] and _LONG_NUMBER.fullmatch(event.value)):
        raise YamlError(f"line {line}: a number has {len(event.value)} digits")
    if "\0" in event.value or any("\ud800" <= letter <= "\udfff" for letter in event.value):
        raise YamlError(f"line {line}: {printable(event.value, 50)!r} has a character that no file can hold")
