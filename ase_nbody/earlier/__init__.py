"""Modules under the names that earlier versions documented and that scripts still import: ``ase_nbody.archive``."""
