"""``TemperatureRamp``: heat or cool a run at a constant rate."""

import math
from typing import Any

from ase.md.md import MolecularDynamics

from ase_nbody.dynamics.integrators import set_target_temperature, target_temperature


class TemperatureRamp:
    """Change the thermostat's temperature linearly, from its own at step 0 to ``end`` at ``steps``. Then it stays.

    The target depends on the step alone, so a resumed run follows the same ramp. ``ResumableRun(..., ramp=ramp)`` calls
    it; elsewhere attach it: ``dynamics.attach(ramp, interval=1)``.

    Args:
        dynamics: an integrator with a thermostat.
        end: temperature at the end in K.
        steps: length of the ramp in steps, at least 1.

    Raises:
        ValueError: the integrator has no thermostat, or a number is out of range.
    """

    def __init__(self, dynamics: MolecularDynamics, end: float, steps: int) -> None:
        start = target_temperature(dynamics)
        if start is None:
            raise ValueError(
                f"a ramp needs a thermostat, and {type(dynamics).__name__} has none: choose another ensemble"
            )
        if not (math.isfinite(end) and end >= 0 and steps >= 1):
            raise ValueError(
                f"a ramp needs an end of at least 0 K and at least one step, got {end} K and {steps} steps"
            )
        self.dynamics, self.start, self.end, self.steps = dynamics, start, float(end), int(steps)

    @property
    def settings(self) -> dict[str, Any]:
        """What a continued run must share."""
        return {"ramp": f"to {self.end:g} K in {self.steps} steps"}

    def temperature_at(self, step: int) -> float:
        """The target in K at a step."""
        share = min(step / self.steps, 1.0)
        return self.start + share * (self.end - self.start)

    def __call__(self) -> None:
        """Set the target of the present step."""
        set_target_temperature(self.dynamics, self.temperature_at(self.dynamics.nsteps))
