"""Make docs/speed.md and docs/speed.png from the results of ``run.py``."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import yaml

matplotlib.use("Agg")  # pictures go to files, so no screen is needed
from contender import MODELS, Model
from matplotlib import pyplot

# A peer and its size, and the size of our network that is compared with it.
PAIRS = (
    ("MACE", "256x0e+256x1o+256x2e", "record"),
    ("MACE", "128x0e+128x1o", "medium"),
    ("MACE", "64x0e", "small"),
    ("NequIP", "4 layers, l=1", "small"),
    ("NequIP", "5 layers, l=3", "record"),
    ("TensorNet", "128 x 2 layers", "small"),
)
PARTS_LEGEND = """The columns:

- ASE: its integrator, and the copy of the atoms that its calculators keep.
- Calculator: checks and conversions.
- Neighbours: the search for pairs.
- Tables: asking whether the pairs are still valid, and building the tables.
- Sums: pair vectors, and sums to atoms.
- Compiled: forward, backward and sums in one, except the sums between blocks.
- GFLOP: the operations of the matrix products; work that blocks repeat counts once.
- Share of peak: GFLOP over the time of the whole step, divided by what the processor's own matrix product reaches in
  the same precision.
"""
PARTS = ("ASE", "calculator", "neighbours", "tables", "forward", "backward", "sums", "compiled", "step")
HEAD = """# Speed{title}

The tables give the time in milliseconds of a step of velocity Verlet at 300 K and 0.5 fs, with energy and forces
through ASE. They are medians over {rounds} rounds, in which all models took turns, each in a process of its own. The
machine and the libraries: {processor}, torch {torch}, ASE {ase}.

All models have random weights, which do not matter to the speed, and the species of the structure. The peers' cutoff is
5 Angstrom, and all settings that their names do not give are their packages' defaults. Ours are the presets `small` and
`medium`, and `record`, the network of [3BPA's records](../benchmarks/accuracy/README.md), with repulsion and closest
distances. Our neighbour list is built anew when atoms have moved far enough: in 20 steps once for 3BPA, twice for
water, and not at all for silicon. Every process keeps the memory that it frees, as `nbody md` does.

`python benchmarks/speed/run.py{option}` makes this page.
"""

Results = dict[str, Any]


def write(results: Results) -> str:
    """The page in Markdown."""
    groups = sorted({tuple(key.split("|")[1:]) for key in results if key.count("|") == 2})
    gpu = threads_against_size(results) == "cuda"
    texts = {"title": " on a GPU", "option": " --device cuda"} if gpu else {"title": "", "option": ""}
    head = HEAD.format(**results["machine"], **texts, rounds=rounds(results))
    parts = [head, f"![Speed](speed{'_gpu' if gpu else ''}.png)\n"]
    for dtype, threads in groups:
        if not structures(results, dtype, threads):
            continue
        title = f"{dtype}, {where(threads)}"
        parts += [f"## {title[0].upper()}{title[1:]}\n", *times(results, dtype, threads)]
        parts += ratios(results, dtype, threads)
        if threads not in ("1", "cuda"):
            parts += gains(results, dtype, threads)
    if any(key.startswith("breakdown|") for key in results):
        parts += ["## Where our step goes\n", *breakdowns(results)]
    parts += ["## Against size\n", *sizes(results)]
    if results.get("accuracy"):
        parts += ["## How accurate these sizes are\n", *accuracies(results["accuracy"])]
    return "\n".join(parts)


def rounds(results: Results) -> str:
    """The number of rounds, as a range if slow models had fewer."""
    groups = (found.values() for key, found in results.items() if key.count("|") == 2)
    counts = {len(one["samples"]) for group in groups for one in group if one.get("samples")}
    return " to ".join(str(count) for count in sorted({min(counts, default=0), max(counts, default=0)}))


def where(threads: str) -> str:
    """The words for the threads or the GPU."""
    return "on the GPU" if threads == "cuda" else f"{threads} thread{'s' if threads != '1' else ''}"


def threads_against_size(results: Results) -> str:
    """The threads (or ``cuda``) of the timings against the number of atoms."""
    return "cuda" if any(key.endswith("|cuda") for key in results) else "1"


def structures(results: Results, dtype: str, threads: str) -> list[str]:
    """The structures on which peers were timed as well."""
    suffix = f"|{dtype}|{threads}"
    keys = [
        key for key, found in results.items() if key.endswith(suffix) and any("NBody" not in name for name in found)
    ]
    return sorted((key.removesuffix(suffix) for key in keys), key=_place)


def _place(structure: str) -> tuple[int, int]:
    """The key that sorts structures by kind and number of atoms."""
    kind, *atoms = structure.split()
    return ("3BPA", "water", "silicon").index(kind), int(*atoms)


def median(found: dict[str, Any] | None) -> float | None:
    """The median of the milliseconds per step, or None without samples."""
    return 1e3 * statistics.median(found["samples"]) if found and found.get("samples") else None


def number(value: float | None, digits: int = 3) -> str:
    """The value with ``digits`` digits; empty for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}g}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose head is the first row."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def times(results: Results, dtype: str, threads: str) -> Iterable[str]:
    """The table of milliseconds per step, weights and peak memory, and a list of what is missing and why."""
    columns = structures(results, dtype, threads)
    groups = [results[f"{structure}|{dtype}|{threads}"] for structure in columns]
    rows = [["ms per step", *columns, "weights", "MB"]]
    notes = []
    for model in MODELS:
        found = [group.get(model.name, {}) for group in groups]
        if not any(found):
            continue  # ``--models`` left it out
        done = [one for one in found if one.get("samples")]
        weights = f"{done[0]['parameters']:,}" if done else ""
        memory = " ... ".join(f"{limit(one['memory'] for one in done):.0f}" for limit in (min, max)) if done else ""
        rows.append([model.name, *(number(median(one)) or "-" for one in found), weights, memory])
        noted = (pair for pair in zip(columns, found, strict=True) if "note" in pair[1])
        notes += [f"- {model.name}, {structure}: {one['note']}" for structure, one in noted]
    yield table(rows)
    memory = "memory of the GPU" if threads == "cuda" else "memory of the process, libraries included"
    yield f"Weights: how many, for the species of the first structure. MB: peak {memory}.\n"
    if notes:
        yield "\n".join(["Left out:\n", *notes]) + "\n"


def fastest(group: dict[str, Any], package: str, size: str) -> float | None:
    """Milliseconds per step of a model in its fastest way."""
    times = {model: median(group.get(model.name)) for model in MODELS}
    ways = (time for model, time in times.items() if (model.package, model.size) == (package, size))
    return min((way for way in ways if way is not None), default=None)


def ratios(results: Results, dtype: str, threads: str) -> Iterable[str]:
    """The table of the peers' times divided by ours, each in its fastest way."""
    columns = structures(results, dtype, threads)
    rows = [["peer's time / ours", *columns]]
    for package, size, ours in PAIRS:
        row = [f"{package} {size} / {ours}"]
        for structure in columns:
            group = results[f"{structure}|{dtype}|{threads}"]
            theirs, our = fastest(group, package, size), fastest(group, "NBody", ours)
            row.append(number(theirs / our, 2) if theirs and our else "-")
        if set(row[1:]) != {"-"}:
            rows.append(row)
    yield table(rows)


def gains(results: Results, dtype: str, threads: str) -> Iterable[str]:
    """The table of the times on one thread divided by those on several."""
    columns = structures(results, dtype, threads)
    rows = [[f"1 thread / {where(threads)}", *columns]]
    for model in MODELS:
        pairs = [
            [median(results.get(f"{structure}|{dtype}|{count}", {}).get(model.name)) for count in ("1", threads)]
            for structure in columns
        ]
        row = [number(one / several, 3) if one and several else "-" for one, several in pairs]
        if set(row) != {"-"}:
            rows.append([model.name, *row])
    yield table(rows)


def breakdowns(results: Results) -> Iterable[str]:
    """The table of milliseconds in each part of our step, and of the share of the peak that matrix products reach."""
    yield PARTS_LEGEND
    rows = [["ms per step", *PARTS, "GFLOP", "share of peak"]]
    for key, found in results.items():
        if not key.startswith("breakdown|") or "note" in found:
            continue
        _, structure, dtype, size = key.split("|")
        for way in ("eager", "compiled"):
            rate = found["gflop"] / found[way]["step"] * 1e3
            share = [number(found["gflop"], 2), f"{100 * rate / found['peak']:.0f} % of {found['peak']:.0f} GFLOP/s"]
            name = f"{structure}, {size}, {dtype}, {way}"
            rows.append([name, *(number(found[way].get(part), 2) for part in PARTS), *share])
    yield table(rows)


def curve(results: Results, name: str) -> list[tuple[int, float]]:
    """The numbers of atoms and milliseconds per step of a model in water, sorted."""
    case = f"float32|{threads_against_size(results)}"
    points = []
    for key, group in results.items():
        structure, _, here = key.partition("|")
        time = median(group.get(name)) if structure.startswith("water") and here == case else None
        if time is not None:
            points.append((int(structure.split()[1]), time))
    return sorted(points)


def sizes(results: Results) -> Iterable[str]:
    """The table of our times per step and per atom in water."""
    names = [Model("NBody", size, "compiled").name for size in ("small", "medium", "record")]
    curves = [dict(curve(results, name)) for name in names]
    case = f"water, float32, {where(threads_against_size(results))}"
    rows = [[case, *(f"{name}: ms, µs per atom" for name in names)]]
    for atoms in sorted(set().union(*curves)):
        cells = [f"{number(one[atoms])}, {1e3 * one[atoms] / atoms:.0f}" if atoms in one else "-" for one in curves]
        rows.append([f"{atoms:,} atoms", *cells])
    yield table(rows)


def accuracies(found: dict[str, Any]) -> Iterable[str]:
    """The table of the errors of our sizes on one task, with the published errors of the peers."""
    tasks = yaml.safe_load((Path(__file__).parents[1] / "accuracy" / "published.yaml").read_text())
    yield "Acetylacetone at 300 K, 450 frames to learn from and 50 for validation; RMSE on the same test frames.\n"
    rows = [["network", "energy / meV", "forces / (meV/Å)"]]
    for size, one in found.items():
        networks = "" if one["networks"] == 1 else f", {one['networks']} networks"
        rows.append([f"NBody {size}{networks}", number(one["energy"]), number(one["forces"])])
    rows += [[f"{peer}, published", *map(number, pair)] for peer, pair in tasks["acac"]["peers"].items()]
    yield table(rows)


# A colour for each package: several shades for its sizes, the darkest for the largest.
_COLOURS = {"NBody": "Blues", "MACE": "Oranges", "NequIP": "Greens", "TensorNet": "Purples"}


def draw(results: Results, path: Path) -> None:
    """Draw the milliseconds per step in water against the number of atoms, or as bars if there is one number only."""
    curves = [(model, points) for model in MODELS if (points := curve(results, model.name))]
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    label = f"step / ms, float32, {where(threads_against_size(results))}"
    sizes = sorted({atoms for _, points in curves for atoms, _ in points})
    if len(sizes) == 1:
        names = [model.name for model, _ in curves]
        axes.barh(names, [points[0][1] for _, points in curves], color=[_colour(model) for model, _ in curves])
        axes.invert_yaxis()
        axes.set(xlabel=label, xscale="log", xlim=(1, None), title=f"{sizes[0]:,} atoms of water")
    else:
        for model, points in curves:
            style, width = "-" if model.way == "compiled" else "--", 2 if model.package == "NBody" else 1
            axes.loglog(*zip(*points, strict=True), style, marker="o", ms=4, lw=width, color=_colour(model))
            axes.lines[-1].set_label(model.name)
        axes.set(xlabel="atoms of water", ylabel=label)
        figure.legend(fontsize=7, loc="outside right upper")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _colour(model: Model) -> tuple[float, ...]:
    """The colour of a model: that of its package, in a shade for its size."""
    sizes = list(dict.fromkeys(other.size for other in MODELS if other.package == model.package))
    shade = 0.45 + 0.55 * sizes.index(model.size) / max(1, len(sizes) - 1)
    return pyplot.get_cmap(_COLOURS[model.package])(shade)
