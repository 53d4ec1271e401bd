"""Which attributes of ASE's integrators carry over from step to step, besides positions, momenta and cell.

This file names the variables of every thermostat, class by class, because a forgotten one would go unnoticed: the run
would continue, but on another trajectory. For each class a test continues a run and compares every bit (ASE 3.29).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from ase_nbody.dynamics.nose_hoover import IsotropicNPT, NoseHooverChain


@dataclass(frozen=True)
class Memory:
    """The names of an integrator's attributes; a dotted name is an attribute of its thermostat or barostat.

    Attributes:
        settings: the constructor fixes them; a continued run must have the same ones.
        variables: the steps change them. ``rng`` stands for the state of a numpy random generator.
    """

    settings: tuple[str, ...]
    variables: tuple[str, ...]


_CHAIN = Memory(
    settings=("dt", "_thermostat._kT", "_thermostat._Q", "_thermostat._tloop"),
    variables=("_q", "_p", "_thermostat._eta", "_thermostat._p_eta"),
)
_BAROSTAT = Memory(
    settings=(*_CHAIN.settings, "_pressure_au", "_barostat._W", "_barostat._R", "_barostat._ploop"),
    variables=(*_CHAIN.variables, "_barostat._xi", "_barostat._p_xi"),
)
_ISOTROPIC = Memory(_BAROSTAT.settings, (*_BAROSTAT.variables, "_eps", "_p_eps", "_cell0", "_volume0"))

# To continue an integrator of your own, add its attributes here.
MEMORY: dict[type[MolecularDynamics], Memory] = {
    VelocityVerlet: Memory(("dt",), ()),
    Langevin: Memory(("dt", "temp", "fr", "fix_com"), ("rng",)),
    Bussi: Memory(("dt", "temp", "taut", "ndof"), ("rng", "transferred_energy")),
    NoseHooverChainNVT: _CHAIN,
    NoseHooverChain: _CHAIN,
    IsotropicMTKNPT: _ISOTROPIC,
    IsotropicNPT: _ISOTROPIC,
    MTKNPT: Memory(_BAROSTAT.settings, (*_BAROSTAT.variables, "_h", "_p_g")),
}


def memory_of(dynamics: MolecularDynamics) -> Memory:
    """The attributes that make up the state of ``dynamics``.

    Raises:
        TypeError: ``MEMORY`` does not list this integrator. A subclass needs an entry of its own, because it may
            remember more than its parent.
    """
    if type(dynamics) not in MEMORY:
        known = ", ".join(kind.__name__ for kind in MEMORY)
        raise TypeError(
            f"MEMORY does not list what {type(dynamics).__name__} remembers from step to step; it lists {known}. "
            "Use one of these, or add its attributes to ase_nbody.dynamics.integrators.MEMORY."
        )
    return MEMORY[type(dynamics)]


def settings_of(dynamics: MolecularDynamics) -> dict[str, Any]:
    """Class and fixed parameters in ASE's units, which a continued run must share with the original."""
    settings = {name: attrgetter(name)(dynamics) for name in memory_of(dynamics).settings}
    return {"integrator": type(dynamics).__name__, **settings}


def get_variables(dynamics: MolecularDynamics) -> dict[str, Any]:
    """A copy of all variables, in types that ``ase.io.jsonio`` restores from JSON to the last bit."""
    return {name: _to_json(attrgetter(name)(dynamics)) for name in memory_of(dynamics).variables}


def set_variables(dynamics: MolecularDynamics, variables: Mapping[str, Any]) -> None:
    """Give ``dynamics`` the variables that ``get_variables`` returned."""
    for name in memory_of(dynamics).variables:
        path, _, attribute = name.rpartition(".")
        if attribute == "rng":
            _set_state(dynamics.rng, variables[name])
        else:
            owner = attrgetter(path)(dynamics) if path else dynamics
            setattr(owner, attribute, _from_json(variables[name]))


def target_temperature(dynamics: MolecularDynamics) -> float | None:
    """The temperature in K that the thermostat holds (the highest if it has several), or None without a thermostat."""
    for name in ("temp", "_thermostat._kT"):
        try:
            return float(np.max(attrgetter(name)(dynamics))) / units.kB
        except AttributeError:
            continue
    return None


def set_target_temperature(dynamics: MolecularDynamics, temperature: float) -> None:
    """Let the thermostat hold another temperature in K from the next step on. The masses of a chain stay as they are.

    Raises:
        TypeError: the integrator has no thermostat of a known kind.
    """
    energy = temperature * units.kB
    if isinstance(dynamics, Langevin):
        dynamics.set_temperature(temperature_K=temperature)
    elif isinstance(dynamics, Bussi):
        dynamics.temp, dynamics.target_kinetic_energy = energy, 0.5 * energy * dynamics.ndof
    elif isinstance(dynamics, NoseHooverChainNVT | IsotropicMTKNPT | MTKNPT):
        for owner in ("", "_thermostat", "_barostat"):  # each has its own copy
            part: Any = getattr(dynamics, owner, None) if owner else dynamics
            if hasattr(part, "_kT"):
                part._kT = energy
    else:
        raise TypeError(f"{type(dynamics).__name__} has no thermostat whose temperature could change")


def temperature(dynamics: MolecularDynamics) -> float:
    """The temperature in K, counted by the degrees of freedom of the thermostat, or else by those of its atoms."""
    freedom = dynamics.ndof if isinstance(dynamics, Bussi) else getattr(dynamics, "degrees_of_freedom", None)
    if freedom is None:
        return float(dynamics.atoms.get_temperature())
    return float(2 * dynamics.atoms.get_kinetic_energy() / (freedom * units.kB))


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.generic):  # JSON would turn it into a Python float, whose powers may round differently
        return {"scalar": np.array([value])}
    if isinstance(value, float):
        return value
    return _get_state(value)


def _from_json(value: Any) -> Any:
    return value["scalar"][0] if isinstance(value, dict) else value


def _get_state(rng: Any) -> dict[str, Any]:
    """The state of a ``numpy.random.Generator``, a ``RandomState`` or the module ``numpy.random``."""
    if isinstance(rng, np.random.Generator):
        return dict(rng.bit_generator.state)
    return dict(rng.get_state(legacy=False))


def _set_state(rng: Any, state: dict[str, Any]) -> None:
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = state
    else:
        rng.set_state(state)
