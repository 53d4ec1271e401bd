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


def count_of(count: int, noun: str, singular: str = "", plural: str = "") -> str:
    """A number with its noun and, if given, a verb, in the singular or in the plural: ``2,000 frames have``."""
    words = (noun, singular) if count == 1 else (f"{noun}s", plural)
    return " ".join(filter(None, (f"{count:,}", *words)))
