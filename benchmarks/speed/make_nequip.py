"""NequIP with random weights, compiled ahead of time as by ``nequip-compile --mode aotinductor --target ase``."""

from pathlib import Path

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from nequip.data import AtomicDataDict, from_ase
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms
from nequip.model import NequIPGNNModel
from nequip.model.modify_utils import modify
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.aoti_metadata import NEQUIP_AOTI_INPUTS_KEY, NEQUIP_AOTI_OUTPUTS_KEY, serialize_aoti_keys
from nequip.utils.global_state import TF32_KEY, set_global_state

SIZES = {
    "4 layers, l=1": {"num_layers": 4, "l_max": 1, "num_features": 32},
    "5 layers, l=3": {"num_layers": 5, "l_max": 3, "num_features": 64},
}


def make(size: str, way: str, dtype: str, device: str, species: list[str], folder: Path) -> tuple[Calculator, int]:
    """The calculator and the number of its weights. The ``folder`` keeps compiled code."""
    set_global_state()
    model = NequIPGNNModel(
        seed=0,
        model_dtype=dtype,
        type_names=species,
        r_max=5.0,
        avg_num_neighbors=20.0,
        per_type_energy_scales=1e-3,
        per_type_energy_shifts=0.0,
        **SIZES[size],
    ).eval()
    parameters = sum(weight.numel() for weight in model.parameters())
    mapping = {symbol: symbol for symbol in species}
    if way == "eager":
        transforms = basic_transforms(model.metadata, 5.0, species, mapping)
        return NequIPCalculator(model.to(device), device=device, transforms=transforms), parameters
    if way == "cuEquivariance":
        import cuequivariance_torch  # noqa: F401  (the import registers operations that the compiled code calls)

        model = modify(model, [{"modifier": "enable_CuEquivariance"}])
    library = folder / f"{size}-{way}-{dtype}-{device}-{''.join(species)}-{torch.__version__}.nequip.pt2"
    if not library.is_file():
        export(model, example(model, species), library, device)
    calculator = NequIPCalculator.from_compiled_model(library, device=device, chemical_species_to_atom_type_map=mapping)
    return calculator, parameters


def example(model: torch.nn.Module, species: list[str]) -> AtomicDataDict.Type:
    """A structure to trace the model with."""
    names = [species[i % len(species)] for i in range(8)]
    cube = [(i, j, k) for i in range(2) for j in range(2) for k in range(2)]
    data = from_ase(Atoms(names, positions=2.5 * torch.tensor(cube).numpy(), cell=[5.0] * 3, pbc=True))
    for transform in basic_transforms(model.metadata, 5.0, species, {symbol: symbol for symbol in species}):
        data = transform(data)
    return data


def export(model: torch.nn.Module, data: AtomicDataDict.Type, library: Path, device: str) -> None:
    """Compile the model for any number of atoms and edges of one structure."""
    target = COMPILE_TARGET_DICT["ase"]
    data = AtomicDataDict.to_(data, device)
    any_size = {name: torch.export.Dim(f"num_{name}s", min=2) for name in ("graph", "node", "edge")}
    metadata = {
        **model.metadata,
        TF32_KEY: "0",
        NEQUIP_AOTI_INPUTS_KEY: serialize_aoti_keys(target["input"]),
        NEQUIP_AOTI_OUTPUTS_KEY: serialize_aoti_keys(target["output"]),
    }
    aot_export_model(
        model=model,
        device=device,
        input_fields=target["input"],
        output_fields=target["output"],
        data=target["data_settings"](data),
        batch_map=target["batch_map_settings"](any_size),
        output_path=str(library),
        inductor_configs={"aot_inductor.metadata": {key: str(value) for key, value in metadata.items()}},
    )
