"""``nbody check``: can one simulate with a model?"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ase_nbody.cli.keys import HeadOption
from ase_nbody.files.archive import read_card
from ase_nbody.files.example import example_structure, example_temperature

if TYPE_CHECKING:
    import ase

    from ase_nbody.checks import Finding


def check(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a shipped model.")],
    structures: Annotated[
        list[Path] | None, typer.Argument(help="Structure files; default: the example in the model file.")
    ] = None,
    index: Annotated[str, typer.Option(help="Which frames of each file, in ASE's notation.")] = "0",
    only: Annotated[list[str] | None, typer.Option(help="Run only this check; may be repeated.")] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile/--no-compile", help="Check compiled code too; at first, compiling takes minutes."),
    ] = True,
    large: Annotated[
        bool, typer.Option("--large", help="Also run 'compiled blocks', the check of code for large systems.")
    ] = False,
    steps: Annotated[
        int, typer.Option(help="Steps in each run of molecular dynamics; a step takes 0.5 to 2 fs.", min=50, max=10**7)
    ] = 500,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of the training data in K; default: the model's, or 300.")
    ] = None,
    head: HeadOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots to this file.")] = None,
) -> None:
    """Check symmetries, derivatives, smoothness, repulsion, extensivity and dynamics; exit with 1 if a check fails."""
    from ase_nbody.checks import COMPILED, print_table, require_plots, run_checks, summary, write_html
    from ase_nbody.data.file_names import in_home
    from ase_nbody.engines.calculator import NBodyCalculator
    from ase_nbody.files.page import require_replaceable

    if html is not None:
        html = Path(in_home(html))
        require_plots()
        require_replaceable(html)
    card = read_card(model)["card"]
    kelvin = temperature if temperature is not None else example_temperature(card)
    frames = _structures(card, structures or [], index, model)
    findings: list[Finding] = []
    try:
        with _progress_bar() as progress:
            findings.extend(
                run_checks(
                    NBodyCalculator(model, head=head),
                    frames,
                    only=only or (),
                    without=() if compiled else COMPILED,
                    large=large,
                    temperature=kelvin,
                    steps=steps,
                    progress=progress,
                )
            )
    except KeyboardInterrupt:
        if not as_json:  # a program would take a part for the whole
            print_table(findings, f"nbody check {model}, interrupted")
        raise
    passed = all(finding.outcome != "failed" for finding in findings)
    if as_json:
        rows = [finding.to_json() for finding in findings]
        typer.echo(json.dumps({"model": model, "passed": passed, "findings": rows}, indent=2, allow_nan=False))
    else:
        print_table(findings, f"nbody check {model}")
        typer.echo(summary(findings))
    if html is not None:  # last: a full disk must not cost the findings
        write_html(findings, html, f"nbody check {model}")
    if not passed:
        raise typer.Exit(1)


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, and a function that moves it: name of the check, how many are done, and how many there are."""
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def _structures(card: dict[str, object], paths: list[Path], index: str, model: str) -> "list[ase.Atoms]":
    """The structures in the given files, or the example in the model file."""
    from ase_nbody.data.structures import read_structures

    if paths:
        return [atoms for path in paths for atoms in read_structures(path, index, default="0")]
    if index != "0":
        raise ValueError(f"--index {index} chooses frames of structure files: name a file, nbody check {model} FILE")
    example = example_structure(card)
    if example is None:
        raise ValueError(
            f"the file of model {model!r} holds no example structure: name a structure file, "
            f"nbody check {model} structure.xyz"
        )
    return [example.to_atoms()]
