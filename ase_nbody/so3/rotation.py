"""How a state transforms: the representation matrix of a rotation or an inversion."""

import torch
from torch import Tensor

from ase_nbody.so3.fragments import Type
from ase_nbody.so3.gaunt import SphereQuadrature
from ase_nbody.so3.harmonics import SphericalHarmonics


def rotation_matrix(l_max: int, rotation: Tensor) -> Tensor:
    """Block-diagonal matrix D with ``Y(R u) = D(R) Y(u)`` for all components up to ``l_max``.

    This is the definition, D(R) = mean_u[Y(R u) Y(u)^T], evaluated by an exact quadrature. Improper rotations get
    the natural parity (-1)^l without a special case.

    Args:
        l_max: highest degree.
        rotation: orthogonal matrix (3, 3) in float64, determinant +1 or -1.

    Returns:
        Matrix ``((l_max + 1)^2, (l_max + 1)^2)``.

    Raises:
        ValueError: ``rotation`` is not orthogonal.
    """
    identity = torch.eye(3, dtype=rotation.dtype)
    if not torch.allclose(rotation @ rotation.T, identity, atol=1e-8):
        raise ValueError(f"not an orthogonal matrix (R R^T differs from 1): {rotation.tolist()}")
    harmonics = SphericalHarmonics(l_max)
    quadrature = SphereQuadrature(max(l_max, 1), l_max, degree=max(l_max, 1))
    points = quadrature.synthesis[:, 1:4] / 3**0.5  # the degree-1 harmonics are sqrt(3) (x, y, z)
    return harmonics(rotation @ points.T) @ quadrature.analysis.T


def representation_matrix(tau: Type, rotation: Tensor) -> Tensor:
    """Block-diagonal matrix by which dense states of a type transform: pseudo-tensors change sign under inversion.

    Args:
        tau: the type.
        rotation: orthogonal matrix (3, 3) in float64, determinant +1 or -1.

    Returns:
        Matrix (components, components).
    """
    natural = rotation_matrix(tau.l_max, rotation)
    if not tau.pseudo:
        return natural
    pseudo = torch.linalg.det(rotation) * rotation_matrix(len(tau.pseudo) - 1, rotation)
    return torch.block_diag(natural, pseudo)
