"""The entry point ``ase.plugins``, by which ASE knows the calculator as ``nbody``."""

from ase._4.plugins.plugin import CalculatorPlugin

__ase_plugins__ = {
    CalculatorPlugin(
        name="nbody",
        citation="R. Kondor, N-body networks, arXiv:1803.01588 (2018)",
        implementation="ase_nbody.engines.calculator.NBodyCalculator",
    )
}
