"""Text from files of others, made safe to show: a terminal obeys escape sequences, even within an error message."""

_LONGEST_SHOWN = 200  # characters of one name or value


def printable(text: object, longest: int = _LONGEST_SHOWN) -> str:
    r"""The text on one line, with every character that is not printed written as an escape: ESC becomes ``\x1b``.

    Control characters, line breaks, marks that reverse the direction of writing, characters without width and
    half surrogates are such characters. Of a longer text, the beginning is shown, followed by ``...``.

    Args:
        text: a name or a value from a file, or a message that quotes one.
        longest: number of characters that are shown at most, before they are escaped.
    """
    given = str(text)
    shown = given if len(given) <= longest else given[:longest] + "..."
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in shown
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as ``1 frame`` and ``2,000 frames``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
