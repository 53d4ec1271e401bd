"""What would spoil a training, found in the data before it starts."""

from ase_nbody.data.lint.contents import leakage
from ase_nbody.data.lint.contents import remarks as remarks_on_contents
from ase_nbody.data.lint.physics import remarks as remarks_on_physics
from ase_nbody.data.lint.remark import Frames, Remark

__all__ = ["Remark", "lint"]


def lint(frames: Frames, test: Frames = ()) -> list[Remark]:
    """All remarks on training frames, and on test frames that leaked into them; the gravest first.

    Args:
        frames: the training data.
        test: data that the training must not have seen.
    """
    found = [*remarks_on_contents(frames), *leakage(frames, test), *remarks_on_physics(frames)]
    return sorted(found, key=lambda remark: ("error", "warning", "note").index(remark.severity))
