"""The driver by which i-PI evaluates an N-body network, for classical and path-integral dynamics.

    DRIVER=$(python -m ase_nbody.engines.ipi_driver)
    i-pi-py_driver -m custom -P "$DRIVER" -o model=ethanol,template=ethanol.xyz -u -a nbody

i-PI loads this file by its path, which ``python -m ase_nbody.engines.ipi_driver`` prints. It registers the file under
its bare name, so the file must not be called like i-PI's own package, ``ipi``.
"""

import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.structures import read_structures
from ase_nbody.engines.models import evaluator_for
from ase_nbody.engines.results import structure_of
from ase_nbody.engines.versions import require_version
from ase_nbody.runtime.evaluation import Evaluation
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.structure import Structure

require_version("ipi", "3.3", module="ipi", extra="ipi")  # drivers of earlier ones are called otherwise

from ipi.pes.dummy import Dummy_driver  # noqa: E402
from ipi.utils.units import unit_to_internal, unit_to_user  # noqa: E402

__DRIVER_NAME__ = "nbody"  # i-PI's interface
__DRIVER_CLASS__ = "NBodyDriver"

FROM_IPI = {"verbosity"}  # what i-PI itself adds to the parameters of ``<ffdirect>``

Array = NDArray[np.float64]
Result = tuple[float, Array, Array, str]


class NBodyDriver(Dummy_driver):
    """Energies, forces and virials for i-PI, in its atomic units. Beads that i-PI sends as a batch share one pass.

    Args:
        template: a file that ASE reads, with the atoms in the order of i-PI's input. It says which elements they are,
            which directions are periodic, and the total charge and labels of parts, if the model looks at these. i-PI
            gives positions and cell.
        model: name of a shipped model or path of a model file. A committee gives the mean of its members, and the
            ``energy_spread`` in i-PI's extras (eV; 0 for one network).
        pbc: overrules the template: ``True`` or ``False`` for all three directions.
        verbose: i-PI's own.
        settings: ``head``, one of a model that has several theories, and the keywords of ``Evaluator``: device, dtype,
            compile, threads, skin.

    Raises:
        FileNotFoundError, ModelFileError, DataError: the model or the template cannot be read.
        ValueError: template or model is missing, the template is no structure that this model knows, or there is an
            argument that is not known.
    """

    def __init__(
        self,
        template: str = "",
        model: str = "",
        pbc: bool | None = None,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        for name, value in (("template", template), ("model", model)):  # i-PI would show Python's own sentence
            if not value:
                raise ValueError(f"the driver needs a {name}: write -o model=ethanol,template=ethanol.xyz, for example")
        wanted = {name: value for name, value in settings.items() if name not in FROM_IPI}
        try:
            self.evaluator = evaluator_for(model, **wanted)
        except TypeError as error:
            raise ValueError(f"the driver's parameters are not right: {error}") from error
        self.template = _read(template, pbc, self.evaluator)
        self.evaluator.require_known(self.template)
        radii = [level.radius for layout in self.evaluator.layouts for level in layout]
        self.reach = max(radii)  # in Angstrom; atoms farther apart have nothing to do with each other
        super().__init__(verbose)

    def compute_structure(self, cell: Array, pos: Array) -> Result:
        """One structure. Its neighbour list is kept while it moves little (i-PI's interface).

        Args:
            cell: lattice vectors as columns (3, 3) in Bohr.
            pos: positions (N, 3) in Bohr.

        Returns:
            Energy in Hartree, forces (N, 3) in Hartree/Bohr, virial -dE/d(strain) (3, 3) in Hartree, and the extras as
            JSON.

        Raises:
            StructureError, EvaluationError: the structure cannot be evaluated; see ``Evaluator.follow``.
            ValueError: i-PI has another number of atoms than the template, or see ``_require_whole``.
        """
        return _result(self.evaluator.follow(self._structure(cell, pos)))

    def compute(self, cell: Array | list[Array], pos: Array | list[Array]) -> Result | list[Result]:
        """One structure, or a list of structures side by side: the beads of a ring polymer (i-PI's interface)."""
        if not isinstance(cell, list):
            return self.compute_structure(cell, np.asarray(pos))
        structures = [self._structure(*one) for one in zip(cell, pos, strict=True)]
        return [_result(evaluation) for evaluation in self.evaluator.evaluate(structures)]

    def _structure(self, cell: Array, pos: Array) -> Structure:
        """The template with the positions and the cell that i-PI gives."""
        positions = np.array(unit_to_user("length", "angstrom", np.asarray(pos)), dtype=np.float64)
        if positions.shape != self.template.positions.shape:
            raise ValueError(
                f"i-PI has {len(positions)} atoms, but the template has {len(self.template)}. Give the driver a "
                "template with the atoms of i-PI's input, in the same order."
            )
        lattice = np.array(unit_to_user("length", "angstrom", np.asarray(cell).T), dtype=np.float64)
        structure = replace(self.template, positions=positions, cell=lattice)
        _require_whole(structure, self.reach)
        return structure


def _read(template: str, pbc: bool | None, evaluator: Evaluator) -> Structure:
    """The structure in a file, with other periodic directions if ``pbc`` is given."""
    (atoms,) = read_structures(template, "-1", default="-1", elements_only=True)
    if pbc is not None:
        if not isinstance(pbc, bool):
            raise ValueError(
                f"pbc is {pbc!r}, but must be True or False; the template can say each direction by itself"
            )
        atoms.pbc = pbc
    # i-PI gives the cell. Here one so large that no atom meets its images, by which a single one would be a crystal.
    atoms.cell = np.eye(3) * max(network.config.reach for network in evaluator.networks)
    return structure_of(atoms, evaluator)


def _require_whole(structure: Structure, reach: float) -> None:
    """Refuse a molecule that is cut by its box, and a liquid that is taken for a cluster.

    i-PI always has a box. Where the template is not periodic, the box must be so large that it makes no difference.

    Raises:
        ValueError: in a direction that is not periodic, atoms come closer to their images than ``reach`` in Angstrom.
    """
    if structure.pbc.all() or not structure.has_volume or not len(structure):
        return
    inverse = np.linalg.inv(structure.cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)  # of the box, over its three pairs of faces
    gaps = heights * (1.0 - np.ptp(structure.positions @ inverse, axis=0))
    narrow = ~structure.pbc & (gaps < reach)
    if narrow.any():
        axis = int(np.flatnonzero(narrow)[0])
        raise ValueError(
            f"the template is not periodic along lattice vector {axis}, but in i-PI's box only {gaps[axis]:.3g} "
            f"Angstrom are free along it, and the model reaches {reach:g} Angstrom. For a liquid or a crystal write "
            "pbc=True; for a molecule write pbc='False' in i-PI's <ffsocket> or <ffdirect>, and make its box larger."
        )


def _result(evaluation: Evaluation) -> Result:
    """What i-PI wants to know, in atomic units. Its unit of force is left out, so that forces stay slopes."""
    hartree, angstrom = unit_to_internal("energy", "electronvolt", 1.0), unit_to_internal("length", "angstrom", 1.0)
    energy, forces, virials = (evaluation.mean(name) for name in ("energy", "forces", "virials"))
    # An input that writes the spread ends i-PI with a KeyError if it is not there, so one network gives it too.
    extra = json.dumps({"energy_spread": float(evaluation.spread("energy"))})
    return float(energy) * hartree, forces * (hartree / angstrom), -virials.sum(axis=0) * hartree, extra


if __name__ == "__main__":
    print(os.path.abspath(__file__))
