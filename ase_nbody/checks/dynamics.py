"""Molecular dynamics: the energy is conserved as well as the integrator promises, and a hot run does not explode."""

from collections.abc import Iterator

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from ase_nbody.checks.case import Array, Case
from ase_nbody.checks.finding import Curve, Finding, Plot, not_applicable
from ase_nbody.hierarchy.connected import connected_groups
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

TIME_STEP_FACTORS = (0.5, 1.0, 2.0)  # of the usual time step
ORDER_RANGE = (1.8, 2.2)  # power of the time step; velocity Verlet is of second order
MAX_DRIFT = {"float64": 0.1, "float32": 1.0}  # meV/atom/ps
MIN_DISTANCE, MAX_BOND = 0.5, 2.0  # as fractions of the sum of the covalent radii
TEMPERATURE_RANGE = (0.5, 2.0)  # as fractions of the thermostat's temperature
FRICTION = 0.01 / units.fs  # in ASE's units
NVE_ROWS = (
    "power of the time step in the fluctuation of the energy",
    "drift of the energy, without the error of the time step",
)


def usual_timestep(atoms: ase.Atoms) -> float:
    """The usual time step in fs: 0.5 with hydrogen, else longer by the root of the lightest mass, but at most 2."""
    return float(min(2.0, 0.5 * np.sqrt(atoms.get_masses().min() / 1.008)))


def nve(case: Case) -> Iterator[Finding]:
    """Velocity Verlet: fluctuations of the energy fall as the square of the time step, and there is no drift."""
    for precision, calculator in (("float64", case.calculator), ("float32", case.float32)):
        for measured in NVE_ROWS:
            if calculator is None:
                yield not_applicable("NVE", f"{measured}, {precision}", "no calculator in float32 was given")
            elif len(case.atoms) == 1:
                yield not_applicable("NVE", f"{measured}, {precision}", "a single atom does not vibrate")
        if calculator is not None and len(case.atoms) > 1:
            yield from _conservation(case, calculator, precision)


def _conservation(case: Case, calculator: BaseCalculator, precision: str) -> Iterator[Finding]:
    """Run three time steps from the same start, and measure fluctuation and drift of the energy.

    The error of the energy contains a part that goes as dt^2 and does not drift. The drift is therefore measured on
    E_0(t) = (4 E(t; dt/2) - E(t; dt)) / 3, which does not contain this part (Richardson extrapolation).
    """
    usual = usual_timestep(case.atoms)
    runs = [_run_nve(case, calculator, factor) for factor in TIME_STEP_FACTORS]
    sizes = [_fluctuation(times, energies) for times, energies in runs]
    power = float(np.polyfit(np.log(TIME_STEP_FACTORS), np.log(np.maximum(sizes, 1e-300)), 1)[0])
    note = ", ".join(
        f"{factor * usual:.3g} fs: {size:.2g} meV/atom" for factor, size in zip(TIME_STEP_FACTORS, sizes, strict=True)
    )
    line = Curve(precision, tuple(factor * usual for factor in TIME_STEP_FACTORS), tuple(sizes))
    plot = Plot("time step / fs", "fluctuation / meV per atom", (line,), log=True)
    low, high = ORDER_RANGE
    yield Finding("NVE", f"{NVE_ROWS[0]}, {precision}", power, lower=low, upper=high, note=note, plot=plot)
    (times, half), (_, whole), _ = runs
    energies = (4.0 * half - whole) / 3.0
    # The window suppresses vibrations that are cut at the ends of the run.
    slope = float(np.polyfit(times, energies, 1, w=np.sqrt(np.hanning(len(times))))[0])
    lines = (("at the usual time step", whole), ("without the error of the time step", energies))
    plot = Plot(
        "time / ps",
        f"total energy / meV per atom, {precision}",
        tuple(Curve(label, tuple(times), tuple(line)) for label, line in lines),
    )
    note = f"in {times[-1]:.2g} ps, from steps of {0.5 * usual:.2g} and {usual:.2g} fs"
    measured, upper = f"{NVE_ROWS[1]}, {precision}", MAX_DRIFT[precision]
    yield Finding("NVE", measured, abs(slope), "meV/atom/ps", upper=upper, note=note, plot=plot)


def _fluctuation(times: Array, energies: Array) -> float:
    """Standard deviation of the energies about their linear trend."""
    trend = np.polyval(np.polyfit(times, energies, 1), times)
    return float(np.std(energies - trend))


def _run_nve(case: Case, calculator: BaseCalculator, factor: float) -> tuple[Array, Array]:
    """Times in ps and total energies in meV/atom relative to the first. All time steps give the same times."""
    atoms, usual = _hot(case, calculator, case.temperature), usual_timestep(case.atoms)
    dynamics = VelocityVerlet(atoms, factor * usual * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=round(TIME_STEP_FACTORS[-1] / factor))
    dynamics.run(round(case.steps / factor))
    relative = 1000 * (np.array(energies) - energies[0]) / len(atoms)
    return np.arange(len(relative)) * TIME_STEP_FACTORS[-1] * usual / 1000, relative


def hot_run(case: Case) -> Iterator[Finding]:
    """Langevin dynamics at twice the temperature of the training data: atoms must neither collide nor fly off."""
    if len(case.atoms) == 1 and not case.atoms.pbc.any():
        yield not_applicable("hot NVT", "closest approach of two atoms", "a single atom meets no other")
        return
    target = 2 * case.temperature
    atoms = _hot(case, case.calculator, target)
    start = _fragments(atoms)
    timestep = usual_timestep(atoms)
    rng = np.random.default_rng(1)
    dynamics = Langevin(atoms, timestep * units.fs, temperature_K=target, friction=FRICTION, fixcm=False, rng=rng)
    temperatures, closest = [], np.inf
    for _ in dynamics.irun(case.steps):
        temperatures.append(atoms.get_temperature())
        closest = min(closest, closest_approach(atoms))
        if not closest >= 0.5 * MIN_DISTANCE:  # the run has failed, and further steps may take long or raise errors
            break
    plot = _temperature_plot(temperatures, timestep)
    note = f"{len(temperatures) * timestep / 1000:.2g} ps at {target:g} K"
    yield Finding(
        "hot NVT", "closest approach, divided by the sum of covalent radii", closest, lower=MIN_DISTANCE, note=note
    )
    mean = float(np.mean(temperatures[len(temperatures) // 2 :])) / target
    low, high = TEMPERATURE_RANGE
    yield Finding(
        "hot NVT", "mean temperature, divided by the target", mean, lower=low, upper=high, note=note, plot=plot
    )
    measured = "fragments that flew off"
    if atoms.pbc.any():
        yield not_applicable("hot NVT", measured, "periodic: there is no outside")
    else:
        # The pieces in which a fragment of the start is now. One that met another does not make up for one that broke.
        pieces = len(np.unique(np.stack([start, _fragments(atoms)]), axis=1)[0])
        yield Finding("hot NVT", measured, float(pieces - len(np.unique(start))), upper=0.0, note=note)


def _hot(case: Case, calculator: BaseCalculator, kelvin: float) -> ase.Atoms:
    """The structure with random momenta of a temperature. Its centre of mass rests, unless there is only one atom."""
    atoms = case.rattled()
    atoms.calc = calculator
    thermalize_momenta(atoms, kelvin, rng=np.random.default_rng(0))
    if len(atoms) > 1:
        Stationary(atoms)
    return atoms


def _temperature_plot(temperatures: list[float], timestep: float) -> Plot:
    times = np.arange(len(temperatures)) * timestep / 1000
    return Plot("time / ps", "temperature / K", (Curve("hot run", tuple(times), tuple(temperatures)),))


def closest_approach(atoms: ase.Atoms) -> float:
    """The smallest distance of two atoms, divided by the sum of their covalent radii; infinite beyond ``MAX_BOND``."""
    return float(min(_bonds(atoms)[2], default=np.inf))


def _fragments(atoms: ase.Atoms) -> NDArray[np.int64]:
    """For each atom the index of its group (N,); atoms that bonds connect are one group."""
    first, second, _ = _bonds(atoms)
    return connected_groups(len(atoms), first, second)


def _bonds(atoms: ase.Atoms) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Pairs closer than twice the sum of their covalent radii: both atoms, and the distance divided by that sum."""
    radii = covalent_radii[atoms.numbers]
    pairs = find_pairs(Structure.from_atoms(atoms), 2 * MAX_BOND * float(radii.max()))
    ratio = pairs.distance / (radii[pairs.first] + radii[pairs.second])
    near = ratio < MAX_BOND
    return pairs.first[near], pairs.second[near], ratio[near]
