"""``NBodyModel``: the ``ModelInterface`` of torch-sim around an ``Evaluator``.

>>> model = NBodyModel("silicon")  # doctest: +SKIP
>>> torch_sim.optimize(system=structures, model=model, optimizer=torch_sim.Optimizer.fire)  # doctest: +SKIP
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.electrons import MULTIPLICITIES, OTHER_CHARGES, SPINS, UNPAIRED, multiplicity_of
from ase_nbody.engines.models import Model, evaluator_for
from ase_nbody.engines.versions import require_version
from ase_nbody.runtime.evaluation import Evaluation
from ase_nbody.runtime.settings import DTYPES
from ase_nbody.structure import Structure, StructureError

require_version("torch-sim-atomistic", "0.6", module="torch_sim", extra="torchsim", python="3.12")

import torch_sim  # noqa: E402
from torch_sim.models.interface import ModelInterface  # noqa: E402

_CHARGES = ("charge", *OTHER_CHARGES)
_SPINS = (*SPINS, *MULTIPLICITIES, *UNPAIRED)
_MOMENTS = "magnetic_moments"  # torch-sim's name


class NBodyModel(ModelInterface):
    """Energies, forces and stresses of batches of systems of any sizes, for torch-sim.

    Neighbours are searched by this package, not by torch-sim. A state's extras have the total charge of each system in
    e (``charge``, ``total_charge``), its spin (``total_spin``, ``spin``, ... as ``electrons.multiplicity_of`` reads
    them; ``magnetic_moments`` of atoms), and the labels of atoms (``parts``, whole numbers), for models that look at
    them.

    Args:
        model: name of a shipped model, path of a model file, an ``NBodyNetwork``, or a list of these. Of a committee
            the results are the mean, with ``energy_spread`` (B,) and ``forces_spread`` (N, 3) beside them.
        device: where to evaluate, and where torch-sim keeps its states.
        dtype: ``torch.float64`` or ``torch.float32``, for the evaluation and the states.
        compute_forces, compute_stress: whether results have forces and stresses; both may be set later.
        settings: ``head``, one of a model that has several theories, and further keywords of ``Evaluator``: compile,
            threads, skin.

    Raises:
        FileNotFoundError, ModelFileError: the model cannot be read (see ``load_members``).
        ValueError: an argument is not allowed.
    """

    def __init__(
        self,
        model: Model | Sequence[Model],
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float64,
        compute_forces: bool = True,
        compute_stress: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.evaluator = evaluator_for(model, device=device, dtype=dtype, **settings)
        self._device, self._dtype = self.evaluator.device, DTYPES[self.evaluator.settings.dtype]
        self._compute_forces, self._compute_stress = compute_forces, compute_stress

    @ModelInterface.compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        """Whether results have forces (torch-sim's interface)."""
        self._compute_forces = wanted

    @ModelInterface.compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        """Whether results have stresses (torch-sim's interface)."""
        self._compute_stress = wanted

    def forward(self, state: torch_sim.SimState, **_: Any) -> dict[str, Tensor]:
        """Evaluate the systems of a state (torch-sim's interface).

        Returns:
            ``energy`` (B,) in eV, ``forces`` (N, 3) in eV/Angstrom, and ``stress`` (B, 3, 3) in eV/Angstrom^3, with
            ASE's sign; NaN for a system whose cell has no volume. Dtype and device are those of the state.

        Raises:
            StructureError, EvaluationError: see ``Evaluator``. Of several systems, the message gives the number.
        """
        systems = _structures(state)
        # The neighbour list of a single system is kept from call to call.
        found = [self.evaluator.follow(systems[0])] if len(systems) == 1 else self.evaluator.evaluate(systems)
        results = {"energy": np.array([one.mean("energy") for one in found])}
        if self.compute_forces:
            results["forces"] = _joined([one.mean("forces") for one in found])
        if self.compute_stress:
            results["stress"] = np.array([_stress(one) for one in found]).reshape(-1, 3, 3)
        if len(self.evaluator.networks) > 1:
            results["energy_spread"] = np.array([one.spread("energy") for one in found])
            results["forces_spread"] = _joined([one.spread("forces") for one in found])
        like = {"dtype": state.positions.dtype, "device": state.positions.device}
        return {name: torch.as_tensor(array, **like) for name, array in results.items()}


def _structures(state: torch_sim.SimState) -> list[Structure]:
    """The systems of a state, one by one."""
    last = np.cumsum(torch.bincount(state.system_idx, minlength=state.n_systems).numpy(force=True))[:-1]
    numbers = np.split(state.atomic_numbers.numpy(force=True).astype(np.int64), last)
    positions = np.split(state.positions.detach().numpy(force=True).astype(np.float64), last)
    cells = state.row_vector_cell.detach().numpy(force=True).astype(np.float64)
    pbc = state.pbc.numpy(force=True).astype(np.bool_)
    of_systems = {
        name: _array(state.system_extras[name]) for name in (*_CHARGES, *_SPINS) if name in state.system_extras
    }
    given = next((of_systems[name] for name in _CHARGES if name in of_systems), None)
    charges = [0.0 if given is None else float(given[system]) for system in range(state.n_systems)]
    electrons_of = [float(atoms.sum()) - charge for atoms, charge in zip(numbers, charges, strict=True)]
    of_atoms = {
        name: np.split(_array(state.atom_extras[name]), last)
        for name in ("parts", _MOMENTS)
        if name in state.atom_extras
    }
    parts, moments = of_atoms.get("parts"), of_atoms.get(_MOMENTS)
    return [
        Structure(
            numbers=numbers[system],
            positions=positions[system],
            cell=cells[system],
            pbc=pbc,
            charge=charge,
            labels=None if parts is None else _whole(parts[system]),
            multiplicity=multiplicity_of(
                {name: of_systems[name][system] for name in _SPINS if name in of_systems},
                None if moments is None else moments[system],
                electrons,
            ),
        )
        for system, (charge, electrons) in enumerate(zip(charges, electrons_of, strict=True))
    ]


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().numpy(force=True))


def _whole(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers, of which torch-sim makes numbers of the state's dtype; as they are if they are not whole.

    Raises:
        StructureError: that dtype takes labels as large as these for one another.
    """
    with np.errstate(invalid="ignore"):
        rounded = labels.astype(np.int64)
    if not np.array_equal(rounded, labels):
        return labels
    if labels.dtype.kind == "f" and (largest := rounded.max(initial=0)) >= 2 ** (np.finfo(labels.dtype).nmant + 1):
        raise StructureError(
            f"the extra 'parts' has the label {largest}, and {labels.dtype}, in which the state holds it, cannot tell "
            "such labels from each other. Number the parts from 0, as ase_nbody.label_molecules(atoms) does."
        )
    return rounded


def _stress(evaluation: Evaluation) -> NDArray[np.float64]:
    """dE/d(strain) / volume (3, 3) in eV/Angstrom^3, or NaN without a volume."""
    structure = evaluation.structure
    if not structure.has_volume:
        return np.full((3, 3), np.nan)
    return np.asarray(evaluation.mean("virials").sum(axis=0) / structure.volume)


def _joined(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([*arrays, np.zeros((0, 3))])
