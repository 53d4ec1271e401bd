"""Assertions for tests: a layer is covariant, and a calculator's forces and stress are derivatives of its energy.

Each assertion raises ``AssertionError`` and says how large the deviation is. Finite differences are of fourth order and
reach a relative error of 1e-6.
"""

from collections.abc import Callable, Sequence

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.so3 import Type, representation_matrix, rotation_matrix

# (multiple of h, weight): f'(0) = (8 [f(h) - f(-h)] - [f(2h) - f(-2h)]) / 12 h + O(h^4)
_STENCIL = ((1, 8.0 / 12.0), (-1, -8.0 / 12.0), (2, -1.0 / 12.0), (-2, 1.0 / 12.0))


def derivative(function: Callable[[float], float], step: float) -> float:
    """f'(0) by central differences of fourth order, from the values at one and two steps on either side of 0."""
    return sum(weight * function(multiple * step) for multiple, weight in _STENCIL) / step


def random_rotation(seed: int, improper: bool = False) -> Tensor:
    """A random rotation matrix (3, 3) in float64, from the uniform distribution.

    Args:
        seed: the same seed gives the same rotation; torch's global random numbers are not touched.
        improper: return a rotation times the inversion, with determinant -1 instead of +1.
    """
    orthogonal, upper = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    orthogonal *= np.sign(np.diag(upper))  # makes the distribution uniform
    determinant = np.sign(np.linalg.det(orthogonal))
    return torch.from_numpy(orthogonal * determinant * (-1.0 if improper else 1.0))


def assert_covariant(
    function: Callable[..., Tensor],
    state: Tensor | None,
    l_max_in: int | Type,
    l_max_out: int | Type,
    *,
    vectors: Tensor | None = None,
    rotations: Sequence[Tensor] | None = None,
    representation: Callable[[int, Tensor], Tensor] = rotation_matrix,
    rtol: float = 1e-10,
) -> None:
    """Check f(D(R) psi, R v) = D(R) f(psi, v): turning the arguments turns the result.

    Args:
        function: called as ``function(state, vectors)``, without arguments that are None.
        state: psi, components first, ``((l_max_in + 1)^2, ...)``, float64.
        l_max_in: highest degree of ``state``; or its type, if it has pseudo-tensors.
        l_max_out: the same for the result, whose shape is ``((l_max_out + 1)^2, ...)``; that of a type is
            ``(components, ...)``.
        vectors: v (..., 3), turned together with the state.
        rotations: matrices (3, 3) in float64; default: a proper and an improper random one, and the inversion.
        representation: the expected D(R) of the result, as a function of (l_max, R); not used for a type. Give a wrong
            one to show that a test can fail.
        rtol: allowed deviation relative to the largest component of the result.

    Raises:
        AssertionError: the function is not covariant, or its result is zero everywhere and shows nothing.
    """
    if rotations is None:
        rotations = [random_rotation(0), random_rotation(1, improper=True), -torch.eye(3, dtype=torch.float64)]
    given = [argument for argument in (state, vectors) if argument is not None]
    value = function(*given)
    components = l_max_out.components if isinstance(l_max_out, Type) else (l_max_out + 1) ** 2
    if value.shape[0] != components:
        raise AssertionError(f"l_max_out = {l_max_out} means {components} components, got {value.shape[0]}")
    scale = float(value.detach().abs().amax()) if value.numel() else 0.0
    if not scale > 0.0:
        raise AssertionError(
            "the result is zero everywhere, which is covariant but shows nothing: use another state or other vectors"
        )
    for rotation in rotations:
        turned = [] if state is None else [torch.tensordot(_representation(l_max_in, rotation), state, dims=1)]
        turned += [] if vectors is None else [vectors @ rotation.T]
        expected = torch.tensordot(_representation(l_max_out, rotation, representation), value, dims=1)
        deviation = float((function(*turned) - expected).detach().abs().amax()) / scale
        if not deviation <= rtol:
            raise AssertionError(
                f"not covariant: the result deviates by {deviation:.2e} of its largest component (allowed {rtol:.0e}) "
                f"under the orthogonal matrix {rotation.tolist()}"
            )


def _representation(
    degrees: int | Type, rotation: Tensor, representation: Callable[[int, Tensor], Tensor] = rotation_matrix
) -> Tensor:
    if isinstance(degrees, Type):
        return representation_matrix(degrees, rotation)
    return representation(degrees, rotation)


def assert_conservative(calculator: BaseCalculator, atoms: ase.Atoms, rtol: float = 1e-6, step: float = 1e-3) -> None:
    """Check that the forces are minus the gradient of the energy, by central differences of all coordinates.

    Args:
        calculator: any ASE calculator in float64; its own state changes.
        atoms: the system; it stays as it is, and its constraints do not count.
        rtol: allowed deviation relative to the largest force component.
        step: step of the differences in Angstrom.

    Raises:
        AssertionError: the forces differ from the differences.
    """
    atoms = atoms.copy()
    atoms.calc = calculator
    forces = atoms.get_forces(apply_constraint=False)
    numeric = np.zeros_like(forces)
    for atom, axis in np.ndindex(forces.shape):
        displacement = np.zeros_like(forces)
        displacement[atom, axis] = 1.0
        numeric[atom, axis] = -derivative(energy_along(atoms, displacement), step)
    _assert_close("forces in eV/Angstrom", forces, numeric, rtol)


def assert_stress_consistent(
    calculator: BaseCalculator, atoms: ase.Atoms, rtol: float = 1e-6, step: float = 1e-4
) -> None:
    """Check that the stress is dE/d(strain) / volume, by central differences of all its components.

    Args:
        calculator: any ASE calculator in float64; its own state changes.
        atoms: the system; it stays as it is, and its constraints do not count.
        rtol: allowed deviation relative to the largest stress component.
        step: step of the differences, a strain without a unit.

    Raises:
        AssertionError: the stress differs from the differences.
    """
    atoms = atoms.copy()
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False, apply_constraint=False)
    numeric = np.zeros((3, 3))
    for row, column in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[row, column] = 1.0
        numeric[row, column] = derivative(energy_strained(atoms, strain), step) / atoms.get_volume()
    _assert_close("stress in eV/Angstrom^3", stress, numeric, rtol)


def energy_along(atoms: ase.Atoms, displacement: NDArray[np.float64]) -> Callable[[float], float]:
    """The energy in eV of ``atoms`` as a function of how far they move, in multiples of ``displacement`` (N, 3)."""
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = atoms.calc

    def energy(multiple: float) -> float:
        moved.positions = atoms.positions + multiple * displacement
        return _energy(moved)

    return energy


def energy_strained(atoms: ase.Atoms, strain: NDArray[np.float64]) -> Callable[[float], float]:
    """A function that gives the energy in eV of ``atoms`` and their cell under a multiple of a strain.

    Only the symmetric part of ``strain`` (3, 3) counts.
    """
    deformed = atoms.copy()
    deformed.set_constraint()
    deformed.calc = atoms.calc

    def energy(multiple: float) -> float:
        deformation = np.eye(3) + 0.5 * multiple * (strain + strain.T)
        deformed.set_cell(atoms.cell.array @ deformation)
        deformed.positions = atoms.positions @ deformation
        return _energy(deformed)

    return energy


def _energy(atoms: ase.Atoms) -> float:
    """The energy in eV that the forces belong to: the free energy where a calculator has one."""
    return atoms.get_potential_energy(force_consistent="free_energy" in atoms.calc.implemented_properties)


def _assert_close(name: str, given: NDArray[np.float64], numeric: NDArray[np.float64], rtol: float) -> None:
    if not given.size:
        return
    deviation, scale = np.abs(given - numeric), max(np.abs(given).max(), np.abs(numeric).max())
    if not deviation.max() <= rtol * scale:
        where = tuple(int(index) for index in np.unravel_index(deviation.argmax(), deviation.shape))
        raise AssertionError(
            f"{name}: component {where} is {given[where]:.9g}, but differences of the energy give {numeric[where]:.9g} "
            f"(allowed: {rtol:.0e} of the largest, {scale:.3g})"
        )
