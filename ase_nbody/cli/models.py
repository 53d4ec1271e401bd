"""``nbody models``: which models come with the package, and what each is for."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """List the models that come with the package: elements, theory, errors, licence, limits."""
    from ase_nbody.files.archive import shipped_models

    rows = {name: summary(name) for name in shipped_models()}
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table.grid(padding=(0, 2, 1, 0))
    for name, row in rows.items():
        networks = f"{row['networks']} networks of " if row["networks"] > 1 else ""
        lines = (
            f"{row['system']} ({', '.join(row['elements'])})",
            f"theory: {row['theory']}",
            f"errors on test frames (MAE): {row['errors']}",
            f"valid for: {row['valid_for']}",
            f"{networks}{row['weights']:,} weights, {row['megabytes']:.1f} MB; licence: {row['licence']}",
        )
        table.add_row(Text(name, style="bold"), Text("\n".join(lines)))
    Console().print(table)


def summary(name: str) -> dict[str, Any]:
    """What a user chooses a shipped model by, from its file."""
    from ase_nbody.files.archive import find_model, read_card
    from ase_nbody.network.config import NBodyConfig
    from ase_nbody.network.network import NBodyNetwork
    from ase_nbody.training.config.start import GENERAL_MODELS

    content = read_card(name)
    card, errors = content["card"], content["card"]["test errors"]
    of_any_size = any(card["example"]["pbc"]) or name in GENERAL_MODELS.values()
    energy = "energy_per_atom" if of_any_size else "energy"
    declared = NBodyNetwork.declared_weights(NBodyConfig.model_validate(content["config"]))
    return {
        "elements": content["config"]["species"],
        "system": card["system"],
        "theory": card["theory"],
        "errors": ", ".join(
            f"{errors[quantity]['mae']:.3g} {errors[quantity]['unit']}" for quantity in (energy, "forces")
        ),
        "networks": content["members"],
        "weights": sum(weight.size for weight in declared.values()),
        "megabytes": find_model(name).stat().st_size / 1e6,
        "licence": card["licence"],
        "valid_for": card["valid for"],
    }
