"""ASE's Nose-Hoover chains with the degrees of freedom that the system has.

ASE 3.29 counts three for each atom. Atoms that are held, and a centre of mass at rest, leave fewer, and the chain then
holds the others at a temperature that is not the target. ASE's chain for constant volume also gives fixed atoms momenta
of its own, which take up most of the energy that the thermostat means for the free ones.
"""

from typing import Any

import ase
from ase.md.nose_hoover_chain import (
    IsotropicMTKBarostat,
    IsotropicMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)


class NoseHooverChain(NoseHooverChainNVT):
    """Constant volume and temperature by a Nose-Hoover chain, with constraints.

    Positions and momenta pass through the constraints of the atoms in each half of velocity Verlet, as in ASE's
    ``VelocityVerlet`` (RATTLE; H. C. Andersen, J. Comput. Phys. 52, 24 (1983)). The chain counts the degrees of freedom
    f that the constraints leave, where the textbook's 3 N stands: dp_eta/dt = sum p^2/m - f kT.

    Args:
        atoms: the system, with a calculator. The constructor applies the constraints to its momenta.
        timestep: in ASE's unit of time.
        temperature_K: the target in K, above 0.
        tdamp: period of the thermostat in ASE's unit of time.
        tchain: number of thermostats in the chain.
        tloop: parts into which the chain divides a step.
        degrees_of_freedom: f, where the system conserves more than its constraints say, such as an angular momentum of
            zero; default: 3 N less what the constraints remove.
        **keywords: ``trajectory``, ``logfile``, ``loginterval``, ... of ASE's dynamics.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float,
        temperature_K: float,
        tdamp: float,
        tchain: int = 3,
        tloop: int = 1,
        *,
        degrees_of_freedom: int | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(atoms, timestep, temperature_K, tdamp, tchain, tloop, **keywords)
        atoms.set_momenta(atoms.get_momenta())
        self._p = atoms.get_momenta()
        self.degrees_of_freedom = degrees_of_freedom or atoms.get_number_of_degrees_of_freedom()
        self._thermostat = NoseHooverChainThermostat(
            self.degrees_of_freedom / 3, self.masses, temperature_K, tdamp, tchain, tloop
        )

    def _integrate_q(self, delta: float) -> None:
        """Do q += delta p / m and apply the constraints to q; p becomes what moved the atoms."""
        before = self.atoms.get_positions()
        self.atoms.set_positions(before + delta * self._p / self.masses)
        self._q = self.atoms.get_positions()
        if self.atoms.constraints:
            self._p = (self._q - before) * self.masses / delta

    def _integrate_p(self, delta: float) -> None:
        """Do p += delta F and apply the constraints to p."""
        self.atoms.set_momenta(self._p + delta * self.atoms.get_forces(md=True))
        self._p = self.atoms.get_momenta()


class IsotropicNPT(IsotropicMTKNPT):
    """Constant pressure and temperature (Martyna, Tobias, Klein) with the centre of mass at rest.

    ASE's equations conserve a total momentum of zero, so the system has f = 3 N - 3 degrees of freedom. They stand in
    the chain, and in the factor 1 + 3 / f by which the barostat's motion damps the momenta (J. Chem. Phys. 101, 4177
    (1994)).

    Args:
        atoms: two atoms or more, without constraints, with a calculator that gives the stress. The constructor stops
            the centre of mass.
        timestep: in ASE's unit of time.
        temperature_K: the target in K, above 0.
        pressure_au: in eV/Angstrom^3.
        tdamp: period of the thermostat in ASE's unit of time.
        pdamp: period of the barostat in ASE's unit of time.
        **keywords: ``trajectory``, ``logfile``, ``loginterval``, ... of ASE's dynamics.

    Raises:
        ValueError: there is only one atom.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        timestep: float,
        temperature_K: float,
        pressure_au: float,
        tdamp: float,
        pdamp: float,
        **keywords: Any,
    ) -> None:
        if len(atoms) < 2:
            raise ValueError("npt needs two atoms at least, because it holds the centre of mass: repeat the cell")
        super().__init__(atoms, timestep, temperature_K, pressure_au, tdamp, pdamp, **keywords)
        self._num_atoms_global = len(atoms) - 1
        self.degrees_of_freedom = 3 * self._num_atoms_global
        self._thermostat = NoseHooverChainThermostat(self._num_atoms_global, self.masses, temperature_K, tdamp)
        self._barostat = IsotropicMTKBarostat(self._num_atoms_global, temperature_K, pdamp)
        self._p -= self.masses * self._p.sum(axis=0) / self.masses.sum()
        atoms.set_momenta(self._p)
