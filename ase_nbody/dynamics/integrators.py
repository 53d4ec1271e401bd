"""What ASE's integrators remember from step to step, beyond positions, momenta and cell: attribute by attribute.

A thermostat's variables are named here, class by class, because a forgotten one would not show: the run would go on,
only not as the same trajectory. Checked for each class by a bit-equal continuation (ASE 3.29).
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


@dataclass(frozen=True)
class Memory:
    """The attributes of an integrator, dotted where they are a part's.

    Attributes:
        settings: fixed by the constructor; a run that is continued must have the same ones.
        variables: changed by the steps. ``rng`` stands for the state of a numpy random generator.
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

# To continue an integrator of your own, add its attributes here.
MEMORY: dict[type[MolecularDynamics], Memory] = {
    VelocityVerlet: Memory(("dt",), ()),
    Langevin: Memory(("dt", "temp", "fr", "fix_com"), ("rng",)),
    Bussi: Memory(("dt", "temp", "taut", "ndof"), ("rng", "transferred_energy")),
    NoseHooverChainNVT: _CHAIN,
    IsotropicMTKNPT: Memory(_BAROSTAT.settings, (*_BAROSTAT.variables, "_eps", "_p_eps", "_cell0", "_volume0")),
    MTKNPT: Memory(_BAROSTAT.settings, (*_BAROSTAT.variables, "_h", "_p_g")),
}


def memory_of(dynamics: MolecularDynamics) -> Memory:
    """The attributes that make up the state of ``dynamics``.

    Raises:
        TypeError: an integrator whose state is not known here. A subclass may remember more than its parent: it is not
            taken for it.
    """
    if type(dynamics) not in MEMORY:
        known = ", ".join(kind.__name__ for kind in MEMORY)
        raise TypeError(
            f"it is not known what {type(dynamics).__name__} remembers from step to step; known are {known}. "
            "Take one of these, or add its attributes to ase_nbody.dynamics.integrators.MEMORY."
        )
    return MEMORY[type(dynamics)]


def settings_of(dynamics: MolecularDynamics) -> dict[str, Any]:
    """Class and fixed parameters, in ASE's units: what must agree for a run to be continued."""
    settings = {name: attrgetter(name)(dynamics) for name in memory_of(dynamics).settings}
    return {"integrator": type(dynamics).__name__, **settings}


def get_variables(dynamics: MolecularDynamics) -> dict[str, Any]:
    """A copy of all variables, of types that JSON by ``ase.io.jsonio`` gives back to the last bit."""
    return {name: _copy(attrgetter(name)(dynamics)) for name in memory_of(dynamics).variables}


def set_variables(dynamics: MolecularDynamics, variables: Mapping[str, Any]) -> None:
    """Give ``dynamics`` the variables that ``get_variables`` returned."""
    for name in memory_of(dynamics).variables:
        path, _, attribute = name.rpartition(".")
        if attribute == "rng":
            _set_state(dynamics.rng, variables[name])
        else:
            setattr(attrgetter(path)(dynamics) if path else dynamics, attribute, _original(variables[name]))


def target_temperature(dynamics: MolecularDynamics) -> float | None:
    """Temperature in K that a thermostat of ASE holds, the highest one of several; None where there is none."""
    for name in ("temp", "_thermostat._kT"):
        try:
            return float(np.max(attrgetter(name)(dynamics))) / units.kB
        except AttributeError:
            continue
    return None


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.generic):  # JSON would make a Python float of it, whose powers may round differently
        return {"scalar": np.array([value])}
    if isinstance(value, float):
        return value
    return _get_state(value)


def _original(value: Any) -> Any:
    return value["scalar"][0] if isinstance(value, dict) else value


def _get_state(rng: Any) -> dict[str, Any]:
    """State of a ``numpy.random.Generator``, of a ``RandomState`` or of the module ``numpy.random``."""
    if isinstance(rng, np.random.Generator):
        return dict(rng.bit_generator.state)
    return dict(rng.get_state(legacy=False))


def _set_state(rng: Any, state: dict[str, Any]) -> None:
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = state
    else:
        rng.set_state(state)
