"""Text from files of others never reaches the terminal as a command."""

import pytest

from ase_nbody.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("energy", "energy"),
        ("Ångström, エネルギー and [bold]", "Ångström, エネルギー and [bold]"),
        ("\x1b[2J\x1b]0;mine\x07", r"\x1b[2J\x1b]0;mine\x07"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\x9b31m", r"\x9b31m"),  # ESC [ in one character
        ("exe.\u202egpj", r"exe.\u202egpj"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\ud800 \U000e0001", r"\ud800 \U000e0001"),
        (b"\x1b", r"b'\x1b'"),
        ("a" * 300, "a" * 200 + "..."),
    ],
)
def test_what_is_not_printed_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
