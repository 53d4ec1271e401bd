"""Molecular dynamics: energy is conserved, as the integrator promises, and a hot run does not explode."""

from collections.abc import Iterator

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ase_nbody.checks.case import Array, Case
from ase_nbody.checks.finding import Curve, Finding, Plot, not_applicable
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

FACTORS = (0.5, 1.0, 2.0)  # of the usual time step
ORDER = (1.8, 2.2)
DRIFT = {"float64": 0.1, "float32": 1.0}  # meV/atom/ps
CLOSEST, BOND = 0.5, 2.0  # of the sum of covalent radii
TEMPERATURES = (0.5, 2.0)  # of the thermostat's
FRICTION = 0.01 / units.fs
NVE_ROWS = (
    "power of the time step in the fluctuation of the energy",
    "drift of the energy, without the error of the time step",
)


def usual_timestep(atoms: ase.Atoms) -> float:
    """In fs: 0.5 where there is hydrogen, longer in proportion to the root of the lightest mass, at most 2."""
    return float(min(2.0, 0.5 * np.sqrt(atoms.get_masses().min() / 1.008)))


def nve(case: Case) -> Iterator[Finding]:
    """Velocity Verlet: the energy fluctuates by what falls with the square of the time step, and does not drift."""
    for precision, calculator in (("float64", case.calculator), ("float32", case.float32)):
        for measured in NVE_ROWS:
            if calculator is None:
                yield not_applicable("NVE", f"{measured}, {precision}", "no calculator in float32 was given")
            elif len(case.atoms) == 1:
                yield not_applicable("NVE", f"{measured}, {precision}", "a single atom does not vibrate")
        if calculator is not None and len(case.atoms) > 1:
            yield from _conservation(case, calculator, precision)


def _conservation(case: Case, calculator: BaseCalculator, precision: str) -> Iterator[Finding]:
    """Runs from the same start at three time steps; the part of the energy's error that goes as dt^2 has no drift.

    So the drift is that of E_0(t) = (4 E(t; dt/2) - E(t; dt)) / 3, which lacks this part (Richardson).
    """
    usual = usual_timestep(case.atoms)
    runs = [_run_nve(case, calculator, factor) for factor in FACTORS]
    sizes = [float(np.std(energies - np.polyval(np.polyfit(times, energies, 1), times))) for times, energies in runs]
    power = float(np.polyfit(np.log(FACTORS), np.log(np.maximum(sizes, 1e-300)), 1)[0])
    note = ", ".join(
        f"{factor * usual:.3g} fs: {size:.2g} meV/atom" for factor, size in zip(FACTORS, sizes, strict=True)
    )
    line = Curve(precision, tuple(factor * usual for factor in FACTORS), tuple(sizes))
    plot = Plot("time step / fs", "fluctuation / meV per atom", (line,), log=True)
    low, high = ORDER
    yield Finding("NVE", f"{NVE_ROWS[0]}, {precision}", power, lower=low, upper=high, note=note, plot=plot)
    (times, half), (_, whole), _ = runs
    energies = (4.0 * half - whole) / 3.0
    slope = float(np.polyfit(times, energies, 1, w=np.sqrt(np.hanning(len(times))))[0])  # less of the vibrations
    lines = (("at the usual time step", whole), ("without the error of its square", energies))
    plot = Plot(
        "time / ps",
        f"total energy / meV per atom, {precision}",
        tuple(Curve(label, tuple(times), tuple(line)) for label, line in lines),
    )
    note = f"in {times[-1]:.2g} ps, from steps of {0.5 * usual:.2g} and {usual:.2g} fs"
    measured, upper = f"{NVE_ROWS[1]}, {precision}", DRIFT[precision]
    yield Finding("NVE", measured, abs(slope), "meV/atom/ps", upper=upper, note=note, plot=plot)


def _run_nve(case: Case, calculator: BaseCalculator, factor: float) -> tuple[Array, Array]:
    """Times in ps and total energies in meV/atom, relative to the first; at the same times whatever the time step."""
    atoms, usual = _hot(case, calculator, case.temperature), usual_timestep(case.atoms)
    dynamics = VelocityVerlet(atoms, factor * usual * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=round(FACTORS[-1] / factor))
    dynamics.run(round(case.steps / factor))
    relative = 1000 * (np.array(energies) - energies[0]) / len(atoms)
    return np.arange(len(relative)) * FACTORS[-1] * usual / 1000, relative


def hot_run(case: Case) -> Iterator[Finding]:
    """Langevin dynamics at twice the temperature of the training data: atoms neither collide nor fly off."""
    if len(case.atoms) == 1 and not case.atoms.pbc.any():
        yield not_applicable("hot NVT", "closest approach of two atoms", "a single atom meets nobody")
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
        closest = min(closest, _closest(atoms))
        if not closest >= 0.5 * CLOSEST:  # all is lost, and what follows may take long or not be evaluated at all
            break
    plot = _temperature_plot(temperatures, timestep)
    note = f"{len(temperatures) * timestep / 1000:.2g} ps at {target:g} K"
    yield Finding("hot NVT", "closest approach by the sum of covalent radii", closest, lower=CLOSEST, note=note)
    mean = float(np.mean(temperatures[len(temperatures) // 2 :])) / target
    low, high = TEMPERATURES
    yield Finding("hot NVT", "mean temperature by the thermostat's", mean, lower=low, upper=high, note=note, plot=plot)
    measured = "fragments that flew off"
    if atoms.pbc.any():
        yield not_applicable("hot NVT", measured, "periodic: there is no outside")
    else:
        yield Finding("hot NVT", measured, float(_fragments(atoms) - start), upper=0.0, note=note)


def _hot(case: Case, calculator: BaseCalculator, kelvin: float) -> ase.Atoms:
    """The structure with momenta drawn at a temperature, its centre of mass at rest unless that is its only atom."""
    atoms = case.rattled()
    atoms.calc = calculator
    thermalize_momenta(atoms, kelvin, rng=np.random.default_rng(0))
    if len(atoms) > 1:
        Stationary(atoms)
    return atoms


def _temperature_plot(temperatures: list[float], timestep: float) -> Plot:
    times = np.arange(len(temperatures)) * timestep / 1000
    return Plot("time / ps", "temperature / K", (Curve("hot run", tuple(times), tuple(temperatures)),))


def _closest(atoms: ase.Atoms) -> float:
    """Smallest distance of two atoms by the sum of their covalent radii; infinite where all are farther than twice."""
    return float(min(_bonds(atoms)[2], default=np.inf))


def _fragments(atoms: ase.Atoms) -> int:
    """Number of groups of atoms connected by pairs closer than twice the sum of covalent radii."""
    first, second, _ = _bonds(atoms)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(atoms), len(atoms)))
    return int(connected_components(graph, directed=False)[0])


def _bonds(atoms: ase.Atoms) -> tuple[Array, Array, Array]:
    """Pairs closer than twice the sum of their covalent radii: both atoms, and the distance by that sum."""
    radii = covalent_radii[atoms.numbers]
    pairs = find_pairs(Structure.from_atoms(atoms), 2 * BOND * float(radii.max()))
    ratio = pairs.distance / (radii[pairs.first] + radii[pairs.second])
    near = ratio < BOND
    return pairs.first[near], pairs.second[near], ratio[near]
