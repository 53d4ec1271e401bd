"""The covariant algebra of Kondor 2018, sections 3 and 4. It knows no atoms.

Read the files in this order: ``fragments`` (what a state is), ``clebsch_gordan`` (the product of two states),
``harmonics`` (directions as states), ``gaunt`` (the same product with fixed weights, fast), ``powers`` (the independent
fragments of powers of a state), ``rotation`` (how states turn). ``constants`` keeps their tables exact.

Conventions, stated once:

* Real spherical harmonics in e3nn's basis: components of degree l in the order m = -l..l, polar axis y, so that the
  degree-1 components are (x, y, z). ``index = l * l + l + m`` runs over all components up to ``l_max``.
* Component normalisation: the mean over the sphere of Y_lm Y_l'm' is the identity, hence |Y_l(u)|^2 = 2 l + 1.
* Natural parity: a component of degree l changes by (-1)^l under inversion. A pseudo-tensor changes by -(-1)^l.
* A state is a tensor ``((l_max + 1)^2, parts, channels)``: component first, so that every linear map between equal l
  is one batched matrix product. Types with several multiplicities or pseudo-tensors: see ``fragments.Type``.
"""

from ase_nbody.so3.clebsch_gordan import (
    clebsch_gordan,
    clebsch_gordan_product,
    coupled,
    gaunt_coefficient,
    gaunt_matrix,
)
from ase_nbody.so3.fragments import Irrep, State, Type, added, by_degree, degrees, parse_type
from ase_nbody.so3.gaunt import SphereQuadrature, gaunt_product
from ase_nbody.so3.harmonics import SphericalHarmonics
from ase_nbody.so3.rotation import representation_matrix, rotation_matrix

__all__ = [
    "Irrep",
    "SphereQuadrature",
    "SphericalHarmonics",
    "State",
    "Type",
    "added",
    "by_degree",
    "clebsch_gordan",
    "clebsch_gordan_product",
    "coupled",
    "degrees",
    "gaunt_coefficient",
    "gaunt_matrix",
    "gaunt_product",
    "parse_type",
    "representation_matrix",
    "rotation_matrix",
]
