"""Engines of other people, in versions that this package knows."""

import re
from importlib import metadata


def require_version(package: str, oldest: str, *, module: str, extra: str, python: str = "3.11") -> None:
    """Refuse an engine that is missing or too old.

    Args:
        package: its name on PyPI.
        oldest: the oldest version with the interface that is used here, such as ``"0.6"``.
        module: the name under which it is imported.
        extra: our optional dependency that installs it.
        python: the oldest Python that it runs under.

    Raises:
        ImportError: it is missing, or older. Its ``name`` is the module.
    """
    remedy = f'Under Python {python} or newer, pip install "{package}>={oldest}", or this package with [{extra}].'
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"this needs {package}, which is not installed. {remedy}", name=module) from error
    if _numbers(found) < _numbers(oldest):
        raise ImportError(
            f"{package} {found} is installed, whose interface is another one: {oldest} or newer is needed. {remedy}",
            name=module,
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
