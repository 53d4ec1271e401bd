"""Entry point ``ase.plugins``: makes the calculator known to ASE by name."""

from ase._4.plugins.plugin import CalculatorPlugin

__ase_plugins__ = {
    CalculatorPlugin(
        name="nbody",
        citation="R. Kondor, N-body networks, arXiv:1803.01588 (2018)",
        implementation="ase_nbody.engines.calculator.NBodyCalculator",
    )
}
