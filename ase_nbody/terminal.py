"""Text for rich that is shown as it stands. A path such as ``o[/run]`` is no markup, and ``:x:`` is no emoji."""

from rich.text import Text

from ase_nbody.text import printable

_LONGEST_LINE = 4000  # characters


def plain(text: object) -> Text:
    """A line with paths or other text that is not ours: neither markup nor escape sequences in it are obeyed.

    A string that is given to ``rich`` instead of this can raise ``MarkupError``.
    """
    return Text(printable(text, _LONGEST_LINE))
