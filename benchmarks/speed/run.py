"""Time a step of molecular dynamics with our networks and other equivariant networks, and write docs/speed.md.

    python benchmarks/speed/run.py [--quick] [--device cuda] [--rounds N] [--environments FOLDER]

This program builds an environment for each peer, makes every model with random weights (the speed does not depend on
them), and times steps of velocity Verlet through ASE at 300 K. The models take turns, round by round, each in a process
of its own: machines are shared and noisy, and so a disturbance hits all models. The page shows medians over the
rounds. A model that takes too long, needs too much memory or cannot be installed is left out, and the page says why.

On a GPU (``--device cuda``, page docs/speed_gpu.md) only float32 is timed, and NVIDIA's cuEquivariance takes part.

``speed.json`` in the folder keeps finished results, and after each of them the page is written anew. A run that was
killed continues; delete the file to start over. If models do not fit into the memory together, time them one after the
other with ``--models``, each together with those of ours that it is compared with; the rounds of all runs count.
"""

import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from contender import KEEP_MEMORY, MODELS, MODULES, Contender, Failure, Model
from environments import build
from report import draw, write

from ase_nbody.files.archive import load_members, read_card

ROOT = Path(__file__).resolve().parents[2]
STRUCTURES = ("3BPA", "water 192", "water 1536", "silicon 216", "silicon 1728")
STRUCTURES_ON_GPU = ("3BPA", "water 1536", "water 12288", "water 98304")
CASES = (("float32", 1), ("float32", 2), ("float64", 1), ("float64", 2))  # dtype and threads
LARGER_STRUCTURES = tuple(f"water {192 * cells**3}" for cells in (3, 4, 6, 8))  # up to 98,304 atoms; only for these:
MODELS_ON_LARGER = {Model("NBody", size, "compiled") for size in ("small", "medium", "record")}
# Our models build their neighbour list only when they must, so they need a fixed number of steps in a round; half as
# many if a step is slow. The peers search at every step, so they take only as many steps as fit into their time.
STEPS_PER_ROUND = 20
SLOW_STEP_S = 5.0
PEERS_ROUND_S = 2.0
TIME_PER_MODEL_S = 120.0  # after this, a model gets no more rounds
ACCURACY_TASKS = {"small": "acac_small", "medium": "acac_medium", "record": "acac"}  # of benchmarks/accuracy


def time_together(structure: str, dtype: str, threads: int, models: list[Model], options: Any) -> dict[str, Any]:
    """The results of all models for one structure, by name: seconds per step, or a note why there are none."""
    results: dict[str, Any] = {}
    contenders: dict[Model, tuple[Contender, int]] = {}

    def launched(model: Model) -> Contender | Failure:
        print(f"{structure}, {dtype}, {threads} thread(s): {model.name}", flush=True)
        task = {"structure": structure, "dtype": dtype, "threads": threads, "size": model.size, "way": model.way}
        try:
            return launch(model, task, options)
        except Failure as error:
            return error

    starting = map(launched, models)
    for model, one in zip(models, list(starting) if options.at_once else starting, strict=True):
        try:
            if isinstance(one, Failure):
                raise one
            number, results[model.name] = await_ready(one, model, options)
            contenders[model] = one, number
        except Failure as error:
            results[model.name] = {"note": str(error)}
    for _ in range(options.rounds):
        for model, (one, number) in list(contenders.items()):
            if number * sum(results[model.name]["samples"]) > TIME_PER_MODEL_S:
                continue
            try:
                found = one.steps(number, options.patience)
            except Failure as error:
                results[model.name] = {"note": str(error)}
                contenders.pop(model)[0].close()
                continue
            results[model.name]["samples"].append(found["seconds"])
            results[model.name]["memory"] = found["memory"]
    for one, _ in contenders.values():
        one.close()
    return results


def launch(model: Model, task: dict[str, Any], options: Any) -> Contender:
    """Start the process of a model, which prepares itself."""
    module, environment = MODULES[model.package]
    python = options.interpreters[environment]
    if isinstance(python, str):
        raise Failure(python)
    own = {"module": module, "memory": options.memory, "device": options.device}
    own["folder"] = str((options.folder / "libraries").resolve())
    log = options.folder / "logs" / f"{task['structure']} {task['dtype']} {task['threads']} {model.name}.log"
    return Contender(python, {**task, **own}, log)


def await_ready(one: Contender, model: Model, options: Any) -> tuple[int, dict[str, Any]]:
    """Wait until a contender is ready. Return its number of steps in a round, and its results, without samples yet."""
    try:
        ready = one.answer(options.patience if model.way == "compiled" else 60.0 + 4.0 * options.limit)
        seconds = one.steps(1, 60.0 + 2.0 * options.limit)["seconds"]
        if seconds > options.limit:
            raise Failure(f"{seconds:.0f} s per step, more than {options.limit:.0f} s")
    except Failure:
        one.close()
        raise
    if model.package == "NBody":
        number = STEPS_PER_ROUND if seconds < SLOW_STEP_S else STEPS_PER_ROUND // 2
    else:
        number = min(STEPS_PER_ROUND, max(1, int(PEERS_ROUND_S / seconds)))
    return number, {"parameters": ready["parameters"], "samples": []}


def merged(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Join the results of an earlier run and of this one. A model in both has the rounds of both."""
    for name, one in found.items():
        old = before.get(name, {})
        if old.get("samples") and one.get("samples"):
            one.update(samples=old["samples"] + one["samples"], memory=max(old["memory"], one["memory"]))
    return {**before, **found}


def break_down(structure: str, size: str, dtype: str, threads: int, device: str) -> dict[str, Any]:
    """Run ``breakdown.py`` in a process of its own, and return what it prints."""
    program = Path(__file__).with_name("breakdown.py")
    command = [sys.executable, str(program), structure, size, dtype, str(threads), device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **KEEP_MEMORY})
    return (
        {"note": f"ended with code {done.returncode}"} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    )


def accuracies() -> dict[str, Any]:
    """The errors of our sizes on the same test frames, if ``benchmarks/accuracy/run.py`` has trained them."""
    found = {}
    for size, task in ACCURACY_TASKS.items():
        model = ROOT / "runs" / "accuracy" / task / "model.nbody"
        if model.is_file():
            errors = read_card(model)["card"]["test errors"]
            rmse = {quantity: errors[quantity]["rmse"] for quantity in ("energy", "forces")}
            found[size] = {"networks": len(load_members(model)), **rmse}
    return found


def jobs(options: Any) -> Iterator[tuple[str, set[str], Callable[[], dict[str, Any]]]]:
    """All measurements, the most important ones first.

    Yields:
        The key of the results, the names of the models that must be in them, and the function that measures them.
    """
    on_gpu = options.device == "cuda"
    chosen = [model for model in MODELS if re.search(options.models, model.name)]
    chosen = [model for model in chosen if on_gpu or model.way != "cuEquivariance"]
    structures = (STRUCTURES_ON_GPU if on_gpu else STRUCTURES)[: 2 if options.quick else None]

    def timing(structure: str, dtype: str, threads: int, models: list[Model]) -> Any:
        names = {model.name for model in models}
        job = partial(time_together, structure, dtype, threads, models, options)
        return f"{structure}|{dtype}|{'cuda' if on_gpu else threads}", names, job

    for dtype, threads in CASES[:1] if options.quick or on_gpu else CASES:
        yield from (timing(structure, dtype, threads, chosen) for structure in structures)
        if threads > 1:
            continue
        for structure, size in itertools.product(structures, ("small", "medium", "record")):
            job = partial(break_down, structure, size, dtype, threads, options.device)
            yield f"breakdown|{structure}|{dtype}|{size}", set(), job
        if dtype == "float32" and not options.quick and not on_gpu:
            ours = [model for model in chosen if model in MODELS_ON_LARGER]
            yield from (timing(structure, dtype, threads, ours) for structure in LARGER_STRUCTURES)


def parse() -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="27 and 192 atoms, one thread, float32; do not write to docs/"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", default="", metavar="REGEX", help="only models whose names match")
    parser.add_argument("--only", default="", metavar="REGEX", help="only results whose keys match")
    parser.add_argument("--at-once", action="store_true", help="let all models prepare at the same time, on many cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per step beyond which a model is left out")
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds that a model may take to compile")
    parser.add_argument("--memory", type=float, default=10.0, help="GB that a model may use")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "speed")
    parser.add_argument("--environments", type=Path, help="default: environments in the folder")
    options = parser.parse_args()
    options.environments = options.environments or options.folder / "environments"
    return options


def main() -> None:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    page = ROOT / "docs" / ("speed_gpu.md" if options.device == "cuda" else "speed.md")
    path = options.folder / f"{'quick' if options.quick else page.stem}.json"
    results = json.loads(path.read_text()) if path.is_file() else {}

    def keep(key: str, found: dict[str, Any]) -> None:
        results[key] = found
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(results, indent=1))
        unfinished.replace(path)

    environments = {environment for _, environment in MODULES.values()} - {"own"}
    options.interpreters = {"own": Path(sys.executable), **build(options.environments, environments)}
    versions = {name: version(name) for name in ("torch", "ase")}
    keep("machine", {"processor": processor(options.device), **versions})
    keep("accuracy", {**results.get("accuracy", {}), **accuracies()})
    for key, wanted, job in jobs(options):
        if re.search(options.only, key) and (key not in results or not wanted <= set(results[key])):
            keep(key, merged(results.get(key, {}), job()))
        if not options.quick:  # a page of the results so far
            page.write_text(write(results))
            draw(results, page.with_suffix(".png"))
    print(write(results) if options.quick else f"Wrote {page} and its picture")


def processor(device: str) -> str:
    """The name of the processor or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return lines[0].partition(": ")[2] if lines else platform.processor()


if __name__ == "__main__":
    main()
