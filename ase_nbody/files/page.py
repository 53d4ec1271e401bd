"""Writes a report as a single HTML file. It contains its pictures, so it opens without a network."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ase_nbody.files.writing import require_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GENERATOR = '<meta name="generator" content="ase-nbody">'  # marks our reports, so that no other file is overwritten
_BEGINNING = f'<!doctype html><html lang="en"><head><meta charset="utf-8">{_GENERATOR}'
_STYLE = """
body { font: 15px/1.4 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .25em .8em; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; } img { max-width: 100%; } figure { margin: 2em 0; }
.passed { color: #17702f; } .failed { color: #b00020; font-weight: bold; } .dim { color: #888; }
"""


def require_plots() -> None:
    """Check that figures can be drawn. Call this before the long work whose results they show.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("the report needs matplotlib: pip install matplotlib")


def page(title: str, *parts: str) -> bytes:
    """A complete HTML file. Each part is HTML already."""
    head = f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    body = f"<h1>{escape(title)}</h1>{''.join(parts)}"
    whole = f"{_BEGINNING}{head}</head><body>{body}</body></html>\n"
    return whole.encode(errors="backslashreplace")  # a path may hold half surrogates, where it is not UTF-8


def require_replaceable(path: Path) -> None:
    """Refuse to write a report over anything but a report. Call this before the long work whose results it shows.

    Raises:
        FileExistsError: there is a file or folder of this name that is not a report of this package.
        FileNotFoundError: the folder of the report does not exist.
        PermissionError: this user may not write there.
    """
    if path.exists() and not _is_page(path):
        raise FileExistsError(f"{path} exists and is not a report: choose another name for the report")
    require_writable(path)


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_BEGINNING)) == _BEGINNING.encode()


def heading(text: str) -> str:
    """The heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{escape(text)}</p>"


def bullets(items: Iterable[str]) -> str:
    """A bulleted list."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], kinds: Iterable[str] | None = None) -> str:
    """A table; ``kinds`` names the style of each row: passed, failed or dim."""
    lines = list(rows)
    styles = list(kinds) if kinds is not None else [""] * len(lines)
    body = "".join(_row("td", cells, style) for cells, style in zip(lines, styles, strict=True))
    return f"<table>{_row('th', head, '')}{body}</table>"


def _row(tag: str, cells: Sequence[object], style: str) -> str:
    return f'<tr class="{style}">' + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def png(figure: "Figure") -> bytes:
    """Render a matplotlib figure as a PNG image."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def picture(image: bytes, caption: str) -> str:
    """A figure with a PNG image that is embedded in the page."""
    source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'
