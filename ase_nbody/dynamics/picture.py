"""The picture of a run: temperature, energies and, in crystals, the pressure over time."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_nbody.files.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SOFTWARE = "ase-nbody"  # marks our pictures, so that no other is overwritten


def draw_run(table: NDArray[np.void], target: NDArray[np.float64] | float | None = None) -> "Figure":
    """Draw the table of a run, as ``ResumableRun.read_table`` gives it.

    Args:
        table: with the columns of ``table.csv``.
        target: the thermostat's temperature in K, one for all rows or one for each (R,); None if there is none.

    Returns:
        A figure; ``figure.savefig("run.png")`` writes it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    pressure = "pressure_GPa" in (table.dtype.names or ())
    figure = Figure(figsize=(8, 6.5 if pressure else 5), layout="constrained")
    panels: Any = figure.subplots(3 if pressure else 2, sharex=True, squeeze=False)[:, 0]
    time, temperature = table["time_ps"], table["temperature_K"]
    panels[0].plot(time, temperature, lw=0.6)
    panels[0].plot(time, _running_mean(temperature), color="C3", label="mean so far")
    if target is not None:
        panels[0].plot(time, np.broadcast_to(target, time.shape), color="black", ls="--", label="thermostat")
    panels[0].set(ylabel="temperature / K")
    for name in ("total", "potential"):
        panels[1].plot(time, table[f"{name}_eV"] - table["potential_eV"][0], lw=0.6, label=name)
    panels[1].set(ylabel="energy above\nthe first frame's potential / eV")
    if pressure:
        panels[2].plot(time, table["pressure_GPa"], lw=0.6)
        panels[2].plot(time, _running_mean(table["pressure_GPa"]), color="C3", label="mean so far")
        panels[2].set(ylabel="pressure / GPa")
    for panel in panels:
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)  # beside the data, not over them
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set(xlabel="time / ps")
    return figure


def write_picture(path: Path, table: NDArray[np.void], target: NDArray[np.float64] | float | None) -> None:
    """Draw the table into a PNG file, which appears whole (see ``draw_run``).

    Raises:
        FileExistsError: there is a file of this name that no run made.
    """
    if path.exists() and not is_picture_of_a_run(path):
        raise FileExistsError(f"{path} is not a picture of a run: move it away")
    payload = io.BytesIO()
    draw_run(table, target).savefig(payload, format="png", dpi=150, metadata={"Software": _SOFTWARE})
    write_whole(path, payload.getvalue())


def is_picture_of_a_run(path: Path) -> bool:
    """Whether ``write_picture`` made this file."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return b"Software\0" + _SOFTWARE.encode() in file.read(4096)  # a text chunk before the pixels


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1))
