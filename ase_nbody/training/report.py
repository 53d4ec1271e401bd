"""``report.html``: how a training went, on which structures the model errs, and what to do next."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_nbody.data import LABELS, Label, LabelledStructure
from ase_nbody.data.labels import BY_NAME
from ase_nbody.data.lint import remarks_by_model
from ase_nbody.files.page import bullets, heading, page, paragraph, picture, png, require_plots, table
from ase_nbody.files.writing import write_whole
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.evaluation import predict

LARGEST_SAMPLE = 1000  # from a larger set, this number of frames or fewer are chosen evenly
N_WORST_FRAMES = 10


class Part(NamedTuple):
    """One set of structures with the reference labels and the network's labels.

    Attributes:
        name: training, validation or test.
        indices: numbers of the chosen frames in their set, from 0.
        frames: the frames with the reference labels.
        predicted: the same frames with the network's labels.
    """

    name: str
    indices: list[int]
    frames: list[LabelledStructure]
    predicted: list[LabelledStructure]

    def pairs(self, label: Label) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """References and predictions (n, components) of a label where both are known; energies are in eV/atom."""
        reference, predicted = (
            np.concatenate([_rows(label, frame) for frame in frames]) for frames in (self.frames, self.predicted)
        )
        known = np.isfinite(reference).all(axis=1) & np.isfinite(predicted).all(axis=1)
        return reference[known], predicted[known]

    def element_errors(self) -> dict[str, NDArray[np.float64]]:
        """Force errors (n, 3) in eV/Angstrom by element."""
        numbers = np.concatenate([frame.structure.numbers for frame in self.frames])
        reference, predicted = (
            np.concatenate([frame.forces for frame in labels]) for labels in (self.frames, self.predicted)
        )
        error = predicted - reference
        known = np.isfinite(error).all(axis=1)
        return {chemical_symbols[z]: error[known & (numbers == z)] for z in np.unique(numbers[known])}


def _rows(label: Label, frame: LabelledStructure) -> NDArray[np.float64]:
    """The values of a label (n, components): a row for the structure or for each atom; energies are in eV/atom."""
    values = np.asarray(getattr(frame, label.name))
    if label.name == "energy":
        values = values / len(frame.structure)
    return values.reshape(-1, math.prod(label.shape))


def write_report(
    network: NBodyNetwork, sets: Mapping[str, Sequence[LabelledStructure]], metrics: Path, output: Path
) -> Path:
    """Write ``report.html`` and its figures as ``figures/*.png``.

    Args:
        network: the trained network.
        sets: the structures by the name of their set: training, validation and, if there is one, test.
        metrics: ``metrics.csv`` of the training.
        output: folder of the run.

    Returns:
        Path of ``report.html``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require_plots()
    parts = [_evaluate(network, name, frames) for name, frames in sets.items() if frames]
    with metrics.open(newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    pictures = []
    for name, caption, draw in _figures(parts, history):
        image = _draw(draw)
        (output / "figures").mkdir(exist_ok=True)
        write_whole(output / "figures" / f"{name}.png", image)
        pictures.append(picture(image, caption))
    last = parts[-1]
    content = page(
        f"Training report: {output.name}",
        heading("What to do next"),
        bullets(advice(parts, history)),
        heading("Errors"),
        table(("set", "frames", "quantity", "MAE", "RMSE", "unit"), _error_rows(parts)),
        heading(f"Forces by element, {last.name} set"),
        table(("element", "atoms", "MAE (meV/Angstrom)", "RMSE (meV/Angstrom)"), _element_rows(last)),
        heading(f"Worst frames, {last.name} set"),
        table(("frame", "force RMSE (meV/Angstrom)", "energy error (meV/atom)", "worst atom"), _worst_rows(last)),
        heading("Figures"),
        *pictures,
        paragraph("The figures are in figures/ as PNG, the learning curves in metrics.csv and tensorboard/."),
    )
    write_whole(output / "report.html", content)
    return output / "report.html"


def _evaluate(network: NBodyNetwork, name: str, frames: Sequence[LabelledStructure]) -> Part:
    """Predict the labels of a set, or of evenly chosen frames of a large one."""
    step = -(-len(frames) // LARGEST_SAMPLE)
    chosen = list(frames[::step])
    return Part(name, list(range(0, len(frames), step)), chosen, predict(network, chosen))


def advice(parts: Sequence[Part], history: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences that say what to do next, as the errors suggest. ``history`` has a row of errors for each epoch."""
    mae = {part.name: _mae(*part.pairs(BY_NAME["forces"])) for part in parts}
    found = []
    column = next((name for name in history[-1] if name.startswith("forces mae")), None) if history else None
    if column and len(history) >= 10 and history[-1][column] < 0.97 * history[-len(history) // 5 - 1][column]:
        found.append("The validation error was still falling in the last fifth of the epochs: train longer.")
    if mae["training"] * 1.5 < mae.get("validation", 0.0):
        found.append(
            f"Forces err by {1e3 * mae['training']:.1f} meV/Angstrom on training frames and "
            f"{1e3 * mae['validation']:.1f} on validation frames: more, and more varied, data would help most."
        )
    elif "validation" in mae:
        found.append("Training and validation errors are alike: a larger network or more epochs may still lower both.")
    by_element = {symbol: float(np.abs(error).mean()) for symbol, error in parts[-1].element_errors().items()}
    worst = max(by_element, key=by_element.__getitem__)
    if len(by_element) > 1 and by_element[worst] > 2.0 * min(by_element.values()):
        found.append(f"Forces on {worst} err most: look at its frames below, and add structures with {worst}.")
    pairs = [pair for part in parts for pair in zip(part.frames, part.predicted, strict=True)]
    judged = remarks_by_model([frame for frame, _ in pairs], [predicted for _, predicted in pairs])
    found += [f"Look at the stress labels. {remark.text}" for remark in judged if remark.severity == "error"]
    found.append("Before long runs: nbody check model.nbody, and nbody md model.nbody for a first trajectory.")
    return found


def _error_rows(parts: Sequence[Part]) -> Iterator[tuple[object, ...]]:
    for part in parts:
        for label in LABELS:
            reference, predicted = part.pairs(label)
            if reference.size:
                rmse = float(np.sqrt(np.mean((predicted - reference) ** 2)))
                shown = f"{1e3 * _mae(reference, predicted):.3g}", f"{1e3 * rmse:.3g}"
                yield part.name, len(part.frames), label.name, *shown, _per_atom(label, label.error_unit)


def _per_atom(label: Label, unit: str) -> str:
    """The unit of a label in ``Part.pairs``: per atom for energies, otherwise ``unit`` itself."""
    return f"{unit}/atom" if label.name == "energy" else unit


def _element_rows(part: Part) -> Iterator[tuple[object, ...]]:
    for symbol, error in part.element_errors().items():
        rmse = float(np.sqrt(np.mean(error**2)))
        yield symbol, len(error), f"{1e3 * np.abs(error).mean():.3g}", f"{1e3 * rmse:.3g}"


def _worst_rows(part: Part) -> Iterator[tuple[object, ...]]:
    errors = [predicted.forces - frame.forces for frame, predicted in zip(part.frames, part.predicted, strict=True)]
    rmse = np.array([np.sqrt(np.mean(error**2)) if np.isfinite(error).all() else -1.0 for error in errors])
    for position in np.argsort(-rmse)[:N_WORST_FRAMES]:
        frame, predicted, error = part.frames[position], part.predicted[position], errors[position]
        atom = int(np.linalg.norm(error, axis=1).argmax())
        energy = 1e3 * (predicted.energy - frame.energy) / len(frame.structure)
        where = f"{atom} ({chemical_symbols[frame.structure.numbers[atom]]})"
        yield part.indices[position], f"{1e3 * rmse[position]:.3g}", f"{energy:+.3g}", where


def _mae(reference: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    return float(np.abs(predicted - reference).mean()) if reference.size else 0.0


Draw = Callable[[Any], None]


def _figures(parts: Sequence[Part], history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str, Draw]]:
    """Yield the name and caption of each figure, and the function that draws it on axes."""
    if history:
        yield "learning", "Validation errors over the epochs", partial(_draw_history, history)
    for label in LABELS:
        if any(part.pairs(label)[0].size for part in parts):
            caption = f"{label.name} in {_per_atom(label, label.unit)}: prediction against reference"
            yield f"parity_{label.name}", caption, partial(_draw_parity, parts, label)
    yield "force_errors", f"Force errors by element, {parts[-1].name} set", partial(_draw_histogram, parts[-1])


def _draw(draw: Draw) -> bytes:
    """The figure as a PNG image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.legend(frameon=False)
    return png(figure)


def _draw_history(history: Sequence[Mapping[str, float]], axes: Any) -> None:
    epochs = [row["epoch"] for row in history]
    for name in history[0]:
        if " mae " in name:
            axes.plot(epochs, [row[name] for row in history], lw=1, label=name.replace(" mae", ""))
    axes.set(yscale="log", xlabel="epoch", ylabel="mean absolute error")


def _draw_parity(parts: Sequence[Part], label: Label, axes: Any) -> None:
    unit = _per_atom(label, label.unit)
    for part in parts:
        reference, predicted = part.pairs(label)
        axes.plot(reference.ravel(), predicted.ravel(), ".", ms=3, alpha=0.5, label=part.name)
    axes.axline((axes.get_xlim()[0],) * 2, slope=1.0, color="black", lw=0.5)
    axes.set(xlabel=f"reference / {unit}", ylabel=f"prediction / {unit}")


def _draw_histogram(part: Part, axes: Any) -> None:
    errors = {symbol: 1e3 * error.ravel() for symbol, error in part.element_errors().items()}
    widest = float(np.percentile(np.abs(np.concatenate(list(errors.values()))), 99.5))
    for symbol, error in errors.items():
        axes.hist(error, bins=80, range=(-widest, widest), density=True, histtype="step", label=symbol)
    axes.set(xlabel="force error / (meV/Angstrom)", ylabel="density")
