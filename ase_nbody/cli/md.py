"""``nbody md``: run molecular dynamics with a model. A killed run can be resumed; one that goes wrong is stopped."""

import json
import math
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import ase
import numpy as np
import torch
import typer
from ase.calculators.calculator import CalculatorError
from ase.optimize import BFGS
from rich.console import Console

from ase_nbody.cli.keys import HeadOption
from ase_nbody.cli.md_plan import (
    check_options,
    fingerprint,
    give_velocities,
    plan_length,
    read_structure,
    refuse_hot_start,
)
from ase_nbody.cli.md_progress import NS_PER_DAY, Bar, stopped_by_signals
from ase_nbody.data.file_names import in_home
from ase_nbody.dynamics import DynamicsStopped, NBodyMonitor, ResumableRun, TemperatureRamp
from ase_nbody.dynamics.constraints import check_constraints
from ase_nbody.dynamics.ensembles import make_dynamics, named_ensemble
from ase_nbody.dynamics.integrators import temperature as present_temperature
from ase_nbody.dynamics.monitor import MAX_TEMPERATURE_K
from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.files.archive import read_card
from ase_nbody.terminal import plain
from ase_nbody.text import printable

_MAX_MONITOR_INTERVAL = 10  # steps between calls of the monitor; fewer where it would otherwise miss a frame


def md(
    model: Annotated[str, typer.Argument(help="Model file or shipped model; a committee if commas separate several.")],
    structure: Annotated[str | None, typer.Argument(help="File that ASE reads; default: the model's example.")] = None,
    ensemble: Annotated[
        str, typer.Option(help="nve; nvt (or langevin), bussi, nose-hoover; npt (isotropic).")
    ] = "langevin",
    temperature: Annotated[float, typer.Option(help="Temperature in K of drawn velocities and thermostat.")] = 300.0,
    pressure: Annotated[float, typer.Option(help="Pressure in GPa, for npt.")] = 0.0,
    timestep: Annotated[float, typer.Option(help="Time step in fs.")] = 0.5,
    ps: Annotated[float | None, typer.Option(help="Length of the run in ps; default: 1.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Length of the run in steps, instead of --ps.")] = None,
    velocities: Annotated[
        str,
        typer.Option(help="auto keeps those of the file unless all are zero; keep keeps even zeros; new draws others."),
    ] = "auto",
    ramp_to: Annotated[
        float | None, typer.Option(help="Change the thermostat's temperature linearly to this, in K.")
    ] = None,
    ramp_ps: Annotated[
        float | None, typer.Option(help="Length of the ramp in ps; default: the whole run. Then it stays.")
    ] = None,
    interval: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between frames; default: 20, or near 20 so that the length is a multiple."),
    ] = None,
    checkpoint: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between checkpoints, which a kill may lose; default: ten intervals."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of velocities and thermostat.")] = 0,
    relax: Annotated[bool, typer.Option("--relax", help="Relax the atoms first, to 0.05 eV/Angstrom.")] = False,
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("md"),
    head: HeadOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    compile: Annotated[
        bool, typer.Option("--compile", help="Use native code; compiling takes a minute, once.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; more than 1 help with large systems.")] = 1,
    max_temperature: Annotated[
        float | None, typer.Option(help="Stop above this, in K; default: ten times the target, 5000 for nve.")
    ] = None,
    max_force: Annotated[float, typer.Option(help="Stop at a larger force, in eV/Angstrom.")] = 50.0,
    max_spread: Annotated[
        float | None, typer.Option(help="Stop at a larger force spread of a committee, in eV/Angstrom.")
    ] = None,
    max_gap: Annotated[
        float, typer.Option(help="Stop if a bound piece is farther from all else, in Angstrom; inf lets it go.")
    ] = 5.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Run molecular dynamics: trajectory.extxyz, table.csv, run.png and checkpoint.json in a folder.

    To continue a killed run, repeat the command with --resume. A larger --ps or --steps prolongs a finished run.
    """
    bounds = {"max_temperature": max_temperature, "max_force": max_force, "max_spread": max_spread, "max_gap": max_gap}
    ensemble = named_ensemble(ensemble)
    check_options(ensemble, timestep, temperature, pressure, velocities, ramp_to, ramp_ps, threads, bounds)
    output = Path(in_home(output))
    length, every = plan_length(ps, steps, timestep, interval, output if resume else None)
    models = [model] if Path(model).is_file() else list(map(in_home, model.split(",")))  # no shell expands the second
    atoms = read_structure(structure, models[0])
    settings = {
        "models": [read_card(member)["checksum"] for member in models],
        "structure": fingerprint(atoms),
        **{"ensemble": ensemble, "temperature": temperature, "pressure": pressure, "timestep": timestep},
        **{"seed": seed, "relax": relax, "device": device, "dtype": dtype},
        **({"compile": True} if compile else {}),
        **({"head": head} if head is not None else {}),
        **({"velocities": velocities} if velocities != "auto" else {}),
    }
    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    resumes = resume and (output / "checkpoint.json").exists()
    check_constraints(atoms)
    members = models if len(models) > 1 else models[0]
    atoms.calc = NBodyCalculator(members, head=head, device=device, dtype=dtype, compile=compile)
    if max_spread is not None and len(atoms.calc.networks) == 1:
        raise ValueError(
            f"--max-spread {max_spread:g} needs a committee, but {model} is a single network: name several models, "
            "separated by commas, or leave it out"
        )
    if relax:  # when the run is resumed too: the monitor compares with the structure at the start
        _relax(atoms)
    kept = give_velocities(atoms, velocities, temperature, rng)
    dynamics = make_dynamics(atoms, ensemble, timestep=timestep, temperature=temperature, pressure=pressure, rng=rng)
    hottest = _bound(max_temperature, ensemble, max(temperature, ramp_to or 0.0))
    if kept and not resumes:
        kelvin = present_temperature(dynamics)
        if length:
            refuse_hot_start(kelvin, hottest, temperature, ensemble)
        _say(f"The velocities of the structure file are kept: {kelvin:.0f} K. --velocities new draws others.")
    dynamics.attach(
        _Monitor(dynamics, **{**bounds, "max_temperature": hottest}),
        interval=math.gcd(every, _MAX_MONITOR_INTERVAL),
    )
    ramp = None
    if ramp_to is not None:
        ramp = TemperatureRamp(dynamics, ramp_to, length if ramp_ps is None else round(1000 * ramp_ps / timestep))
    with ResumableRun(
        dynamics,
        output,
        interval=every,
        checkpoint=checkpoint or 10 * every,
        resume=resume,
        settings=settings,
        ramp=ramp,
    ) as run:
        if run.left_out and not resumes:
            names = ", ".join(repr(name) for name in run.left_out)
            _say(f"The trajectory leaves out {names}: labels of the first structure, or what its format cannot keep.")
        raise typer.Exit(_follow(run, length, timestep, as_json))


class _Monitor(NBodyMonitor):
    """A monitor whose sentences name the options of the command."""

    def _bound_name(self, parameter: str) -> str:
        return "--" + parameter.replace("_", "-")


def _bound(given: float | None, ensemble: str, temperature: float) -> float:
    """The bound of the monitor in K: ten times the highest target, 5000 K without one."""
    if given is not None:
        return given
    return 10 * temperature if temperature and ensemble != "nve" else MAX_TEMPERATURE_K


def _say(sentence: str) -> None:
    Console(stderr=True).print(plain(sentence), soft_wrap=True)


def _relax(atoms: ase.Atoms) -> None:
    if not BFGS(atoms, logfile=None).run(fmax=0.05, steps=500):
        raise ValueError(
            "the structure did not relax to 0.05 eV/Angstrom in 500 steps: does the model know such structures?"
        )


def _follow(run: ResumableRun, steps: int, timestep: float, as_json: bool) -> int:
    """Run to the end, to an interruption or until the monitor stops the run. Show the progress and print a report.

    Returns:
        The exit code.
    """
    console = Console(stderr=True)
    began, first = time.monotonic(), run.dynamics.nsteps
    reason, code = None, 0
    with Bar(console, steps, timestep, first, quiet=as_json) as bar, stopped_by_signals(run) as received:
        run.dynamics.attach(lambda: bar.update(run.dynamics), interval=run.interval)
        try:
            if not run.run_to(steps):
                reason, code = f"interrupted by {signal.Signals(received[0]).name}", 128 + received[0]
        except DynamicsStopped as error:
            reason, code = str(error), 1
        except CalculatorError as error:
            if not run.table.length:  # the first structure cannot be evaluated: there is nothing to report
                raise
            reason, code = f"stopped at step {run.dynamics.nsteps}: {error}", 1
    made = run.dynamics.nsteps - first
    speed = made * timestep * NS_PER_DAY / (time.monotonic() - began)
    report = {"steps": run.dynamics.nsteps, "resumed at": run.resumed_at, "ns per day": speed, "stopped": reason}
    _report(console, run, report, as_json, code)
    return code


def _way_on(run: ResumableRun, code: int) -> str:
    """How to go on after the end of a run. What stopped a run would stop it again: the steps to it are the same."""
    if code != 1:
        return "; the same command with --resume continues from there"
    if not run.dynamics.nsteps:
        return ". The same command would stop again: change what the sentence above names, and repeat it"
    return (
        ". The same command with --resume would make the same steps and stop again. To go on from there, raise the "
        "bound (--max-force, --max-temperature, --max-spread, --max-gap) with --resume; otherwise change what the "
        "sentence above names, and start a new run in another folder (--output)"
    )


def _report(console: Console, run: ResumableRun, report: dict[str, Any], as_json: bool, code: int) -> None:
    table = run.read_table()
    report["mean temperature (K)"] = float(table["temperature_K"].mean())
    report["last frame"] = int(table["step"][-1])
    report["files"] = [str(file.path) for file in (run.trajectory, run.table)]
    try:
        report["files"].append(str(run.draw()))
    except ImportError:
        _say("There is no picture, because it needs matplotlib: pip install matplotlib.")
    except OSError as error:
        _say(f"There is no picture, because it cannot be written ({error}).")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    if report["stopped"]:
        kept = f"Frames are kept up to step {report['last frame']}{_way_on(run, code)}."
        for line, style in ((report["stopped"], "bold red"), (kept, None)):
            console.print(plain(line), style=style, soft_wrap=True)
    speed = f", {report['ns per day']:.2f} ns/day" if report["ns per day"] else ""  # 0 if it was finished before
    typer.echo(f"{report['steps']} steps, mean temperature {report['mean temperature (K)']:.1f} K{speed}")
    for path in report["files"]:
        typer.echo(printable(path, 4000))
