"""The entry point by which OpenMM-ML finds the potential ``"nbody"``. Importing it loads neither torch nor a model."""

from typing import Any

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory


class NBodyPotentialImplFactory(MLPotentialImplFactory):
    """Makes what stands behind ``MLPotential("nbody", modelPath=...)``; see ``ase_nbody.engines.openmm``."""

    def createImpl(self, name: str, **args: Any) -> MLPotentialImpl:
        """Load the model. The arguments are those of ``NBodyPotentialImpl``."""
        from ase_nbody.engines.openmm import NBodyPotentialImpl

        return NBodyPotentialImpl(**args)
