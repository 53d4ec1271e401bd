"""The spread of a committee, and what it says about the committee's error.

The spread of a quantity is the standard deviation over the M members, s^2 = 1/M sum_m (x_m - x)^2 with the mean x. That
of a force is taken component by component, as the calculator's ``forces_spread`` is. A committee is calibrated if the
errors of its mean are as large as its spread. Committees of networks that learnt from the same data are not: what all
members get wrong in the same way does not show. So the ratio of both is measured on frames with reference values.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Column, Table
from scipy.stats import spearmanr

from ase_nbody.data import LabelledStructure
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.terminal import plain
from ase_nbody.training.evaluation import predict
from ase_nbody.training.loss import unit_of

_LEAST_VALUES = 3  # fewer have no correlation


def spread_calibration(
    networks: Sequence[NBodyNetwork], data: Sequence[LabelledStructure]
) -> dict[str, dict[str, float]]:
    """Compare the spread of a committee with the error of its mean.

    Args:
        networks: the members, which have one configuration.
        data: structures with reference energies or forces; those of other labels are left out.

    Returns:
        For ``energy_per_atom`` (meV/atom) and ``forces`` (meV/Angstrom, root mean squares over components):
        ``rms_error`` of the mean, ``rms_spread``, their ``ratio`` (multiply a spread by it to get a typical error), and
        the rank ``correlation`` of spread and error over structures or atoms. Quantities without reference values, and
        ratios and correlations that are not defined, are left out.

    Raises:
        DataError: the data contain species that the network does not know.
    """
    members = [predict(network, data) for network in networks]
    energies, forces = [], []
    for frame, *predicted in zip(data, *members, strict=True):
        size = len(frame.structure)
        energies.append((frame.energy / size, *_mean_and_spread([one.energy / size for one in predicted])))
        mean, spread = _mean_and_spread([one.forces for one in predicted])
        forces += list(zip(frame.forces, mean, spread, strict=True))
    return {
        quantity: found
        for quantity, values in (("energy_per_atom", energies), ("forces", forces))
        if (found := _compared(np.array(values, dtype=np.float64).reshape(len(values), 3, -1)))
    }


def _mean_and_spread(values: Sequence[float | NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    stacked = np.stack(values)
    return stacked.mean(0), stacked.std(0)


def _compared(values: NDArray[np.float64]) -> dict[str, float]:
    """The measures of ``spread_calibration`` for reference, mean and spread (n, 3, components) in eV and Angstrom."""
    reference, mean, spread = np.moveaxis(values[np.isfinite(values).all((1, 2))], 1, 0)
    if not len(reference):
        return {}
    error, spread = (np.sqrt(np.mean(part**2, axis=1)) for part in (mean - reference, spread))
    rms_error, rms_spread = (float(1e3 * np.sqrt(np.mean(part**2))) for part in (error, spread))
    found = {"rms_error": rms_error, "rms_spread": rms_spread}
    if rms_spread > 0.0:
        found["ratio"] = rms_error / rms_spread
    if len(error) >= _LEAST_VALUES and np.ptp(error) > 0.0 and np.ptp(spread) > 0.0:
        found["correlation"] = float(spearmanr(spread, error).statistic)
    return found


def spread_rows(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """What ``spread_calibration`` returned as rows of words: quantity, error, spread, ratio, correlation, unit."""
    return [
        (
            quantity.replace("_", " "),
            *(f"{one[name]:.3f}" for name in ("rms_error", "rms_spread")),
            *(_short(one[name]) if name in one else "-" for name in ("ratio", "correlation")),
            unit_of(quantity),
        )
        for quantity, one in found.items()
    ]


def _short(value: float) -> str:
    """Two decimals where they mean something: ratios of a zero of energy that differs reach a million."""
    return f"{value:.2f}" if abs(value) < 100.0 else f"{value:.0f}"


SPREAD_HEAD = ("quantity", "RMS error", "RMS spread", "ratio", "correlation", "unit")


def spread_table(found: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """A table to print, with what ``spread_calibration`` returned."""
    shown = _uncut(SPREAD_HEAD, f"Spread of the committee, {title}")
    for row in spread_rows(found):
        shown.add_row(*row)
    return shown


def members_table(
    members: Sequence[Mapping[str, Mapping[str, float]]], mean: Mapping[str, Mapping[str, float]], title: str
) -> Table:
    """A table to print: the mean absolute errors of each member and of their mean, as ``evaluate_model`` gives them."""
    quantities = [quantity for quantity in mean if not quantity.startswith("forces_")]
    names = [f"{quantity.replace('_', ' ')}\n({unit_of(quantity)})" for quantity in quantities]
    shown = _uncut(("MAE of", *names), title)
    rows = [(f"member {number}", errors) for number, errors in enumerate(members, start=1)]
    for name, errors in (*rows, ("their mean", mean)):
        shown.add_row(name, *(f"{errors[quantity]['mae']:.3f}" for quantity in quantities))
    return shown


def _uncut(head: Sequence[str], title: str) -> Table:
    """An empty table that breaks its entries where a terminal is too narrow; otherwise rich would cut numbers off."""
    return Table(*(Column(name, overflow="fold") for name in head), title=plain(title))
