"""The entry point by which OpenMM-ML finds the potential ``"nbody"``. Importing it loads nothing else.

OpenMM-ML loads all entry points while it is imported itself, so nothing of it can be imported here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_nbody.engines.openmm import NBodyPotentialImpl


class NBodyPotentialImplFactory:
    """Makes what stands behind ``MLPotential("nbody", modelPath=...)`` (OpenMM-ML's ``MLPotentialImplFactory``)."""

    def createImpl(self, name: str, **args: Any) -> "NBodyPotentialImpl":
        """Load the model. The arguments are those of ``NBodyPotentialImpl``."""
        from ase_nbody.engines.openmm import NBodyPotentialImpl

        return NBodyPotentialImpl(**args)
