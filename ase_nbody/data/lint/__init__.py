"""Checks of a data set that find what would spoil a training, before it starts."""

from collections.abc import Iterable

from ase_nbody.data.lint.agreement import remarks as remarks_on_agreement
from ase_nbody.data.lint.agreement import wrong_bonds
from ase_nbody.data.lint.contents import leakage
from ase_nbody.data.lint.contents import remarks as remarks_on_contents
from ase_nbody.data.lint.model import frames_with_stress
from ase_nbody.data.lint.model import remarks as remarks_by_model
from ase_nbody.data.lint.physics import remarks as remarks_on_physics
from ase_nbody.data.lint.remark import Frames, Remark

__all__ = ["Remark", "frames_with_stress", "in_order", "lint", "remarks_by_model", "wrong_bonds"]


def lint(frames: Frames, test: Frames = ()) -> list[Remark]:
    """All remarks on a data set, the most serious first.

    Args:
        frames: the training frames.
        test: test frames. A test frame that is also a training frame is an error.
    """
    found = [
        *remarks_on_contents(frames),
        *leakage(frames, test),
        *remarks_on_agreement(frames),
        *remarks_on_physics(frames),
    ]
    return in_order(found)


def in_order(remarks: Iterable[Remark]) -> list[Remark]:
    """Remarks with the most serious first, and otherwise in the order given."""
    return sorted(remarks, key=lambda remark: ("error", "warning", "note").index(remark.severity))
