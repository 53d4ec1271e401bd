"""Networks with levels of labelled parts need labels: data that lack them are refused before anything is trained."""

from collections.abc import Sequence

import ase

from ase_nbody.data.labels import DataError, LabelledStructure
from ase_nbody.hierarchy.build import LevelLayout
from ase_nbody.hierarchy.labelled import Membership
from ase_nbody.structure import StructureError


def require_parts(data: Sequence[LabelledStructure], layout: Sequence[LevelLayout], name: str = "data") -> None:
    """Refuse frames whose labels name no parts, if a level of the layout has labelled parts.

    Args:
        data: labelled structures.
        layout: the levels of the network.
        name: what the data are, for the message about frames that come from no file.

    Raises:
        DataError: a frame has no labels, or its parts cannot be made whole (see ``Membership.of``).
    """
    if not any(level.is_labelled for level in layout):
        return
    for number, frame in enumerate(data):
        try:
            Membership.of(frame.structure)
        except StructureError as error:
            where = f"frame {number} of the {name}" if frame.source is None else str(frame.source)
            formula = ase.Atoms(frame.structure.numbers).get_chemical_formula()
            raise DataError(f"{where} ({formula}): {error}") from error
