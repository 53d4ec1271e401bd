"""``report.html``: how a training went, on which structures the model errs, and what to do next."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ase_nbody.data import LABELS, LabelledStructure
from ase_nbody.data.labels import BY_NAME
from ase_nbody.data.lint import remarks_by_model
from ase_nbody.data.statistics import evenly_spaced
from ase_nbody.files.page import bullets, heading, page, paragraph, picture, require_plots, table
from ase_nbody.files.writing import write_whole
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.compared import Part, mean_absolute_error, per_atom
from ase_nbody.training.evaluation import predict, require_finite
from ase_nbody.training.figures import figures
from ase_nbody.training.folder import REPORT_NAME, WORST_NAME
from ase_nbody.training.splits import take
from ase_nbody.training.spread import SPREAD_HEAD, spread_calibration, spread_rows
from ase_nbody.training.worst import as_extxyz, worst_frames

LARGEST_SAMPLE = 1000  # from a larger set, this number of frames or fewer are chosen evenly
_OVERFITTED = 1.5  # times the training error is less than the validation error
_LEAST_EPOCHS_TO_JUDGE = 10


def write_report(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    sets: Mapping[str, Sequence[LabelledStructure]],
    metrics: Path | Sequence[Path],
    output: Path,
    remarks: Sequence[str] = (),
) -> Path:
    """Write ``report.html``, its figures as ``figures/*.png``, and the worst frames as ``worst.extxyz``.

    Args:
        network: the trained network, or the members of a committee, which is then judged as a whole.
        sets: the structures by the name of their set: training, validation and, if there is one, test.
        metrics: ``metrics.csv`` of the training, or those of all members; the mean of their rows is shown.
        output: folder of the run.
        remarks: sentences on the training, shown above the figures.

    Returns:
        Path of ``report.html``.

    Raises:
        ImportError: matplotlib is not installed.
        DataError: the network gives values that are not finite.
    """
    require_plots()
    parts = [_evaluate(network, name, frames) for name, frames in sets.items() if frames]
    history = _mean_history([metrics] if isinstance(metrics, Path) else metrics)
    pictures = []
    for name, caption, image in figures(parts, history):
        (output / "figures").mkdir(exist_ok=True)
        write_whole(output / "figures" / f"{name}.png", image)
        pictures.append(picture(image, caption))
    content = page(
        f"Training report: {output.name}",
        heading("What to do next"),
        bullets(advice(parts, history)),
        heading("Errors"),
        table(("set", "frames", "quantity", "MAE", "RMSE", "unit"), _error_rows(parts)),
        *_samples(parts, sets),
        *_committee(network, parts[-1]),
        *_forces(parts, output),
        *map(paragraph, remarks),
        heading("Figures"),
        *pictures,
        paragraph("The figures are in figures/ as PNG, the learning curves in metrics.csv and tensorboard/."),
    )
    write_whole(output / REPORT_NAME, content)
    return output / REPORT_NAME


def _mean_history(metrics: Sequence[Path]) -> list[dict[str, float]]:
    """The rows of errors, one for each epoch; of several tables the mean, over the epochs that all of them have."""
    tables = []
    for path in metrics:
        with path.open(newline="") as file:
            tables.append(
                [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
            )
    rows_of_epochs = zip(*tables, strict=False)  # a member may have stopped early
    return [
        {name: float(np.mean([row.get(name, np.nan) for row in rows])) for name in rows[0]} for rows in rows_of_epochs
    ]


def _committee(network: NBodyNetwork | Sequence[NBodyNetwork], part: Part) -> Iterator[str]:
    """How the spread of a committee compares with its errors; nothing for a single network."""
    if isinstance(network, NBodyNetwork):
        return
    yield heading(f"Spread of the committee of {len(network)}, {part.name} set")
    yield table(SPREAD_HEAD, spread_rows(spread_calibration(network, part.frames)))
    yield paragraph(
        "The spread is the standard deviation over the members. Multiply it by the ratio to get a typical error."
    )


def _forces(parts: Sequence[Part], output: Path) -> Iterator[str]:
    """Errors of the forces by element and the worst frames, of the last set that has forces."""
    part = next((part for part in reversed(parts) if part.element_errors()), None)
    if part is None:
        return
    worst = worst_frames(part.frames, part.predicted)
    write_whole(output / WORST_NAME, as_extxyz(worst, part.name))
    yield heading(f"Forces by element, {part.name} set")
    yield table(("element", "atoms", "MAE (meV/Angstrom)", "RMSE (meV/Angstrom)"), _element_rows(part))
    yield heading(f"Worst frames, {part.name} set")
    head = ("frame", "force RMSE (meV/Angstrom)", "energy error (meV/atom)", "worst atom")
    yield table(head, (one.row() for one in worst))
    yield paragraph(
        f"{WORST_NAME} has these frames with the reference and, as predicted_energy and predicted_forces, "
        "the prediction."
    )


def _evaluate(network: NBodyNetwork | Sequence[NBodyNetwork], name: str, frames: Sequence[LabelledStructure]) -> Part:
    """Predict the labels of a set, or of evenly chosen frames of a large one."""
    step = -(-len(frames) // LARGEST_SAMPLE)
    chosen = list(take(frames, evenly_spaced(frames, step)))
    predicted = predict(network, chosen)
    places = [str(frame.source or f"a frame of the {name} set") for frame in chosen]
    require_finite("the network", predicted, places)
    return Part(name, chosen, predicted)


def _samples(parts: Sequence[Part], sets: Mapping[str, Sequence[LabelledStructure]]) -> Iterator[str]:
    """Which sets are too large to be shown as a whole."""
    for part in parts:
        if len(part.frames) < len(sets[part.name]):
            yield paragraph(
                f"Of the {len(sets[part.name])} frames of the {part.name} set, {len(part.frames)} evenly chosen ones "
                "are in tables, figures and worst frames."
            )


def advice(parts: Sequence[Part], history: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences that say what to do next, as the errors suggest. ``history`` has a row of errors for each epoch."""
    with_forces = [part for part in parts if part.element_errors()]
    mae = {part.name: mean_absolute_error(*part.pairs(BY_NAME["forces"])) for part in with_forces}
    found = _fit_advice(mae.get("training"), mae.get("validation"), _still_fell(history))
    by_element: dict[str, float] = {}
    if with_forces:
        by_element = {symbol: float(np.abs(one).mean()) for symbol, one in with_forces[-1].element_errors().items()}
    worst = max(by_element, key=by_element.__getitem__, default="")
    if len(by_element) > 1 and by_element[worst] > 2.0 * min(by_element.values()):
        found.append(f"Forces on {worst} err most: look at its frames below, and add structures with {worst}.")
    pairs = [pair for part in parts for pair in zip(part.frames, part.predicted, strict=True)]
    judged = remarks_by_model([frame for frame, _ in pairs], [predicted for _, predicted in pairs])
    found += [f"Look at the stress labels. {remark.text}" for remark in judged if remark.severity == "error"]
    found.append("Before long runs: nbody check model.nbody, and nbody md model.nbody for a first trajectory.")
    return found


def _fit_advice(training: float | None, validation: float | None, still_fell: bool) -> list[str]:
    """What mean absolute force errors (eV/Angstrom) on training and validation frames suggest, where they are known.

    The falling learning rate lowers the validation error at the end of any training. So that is no reason to train a
    network for longer which has learnt its training frames already.
    """
    if training is not None and validation is not None and training * _OVERFITTED < validation:
        return [
            f"Forces err by {1e3 * training:.1f} meV/Angstrom on training frames and {1e3 * validation:.1f} on "
            "validation frames: more, and more varied, data would help most."
        ]
    if still_fell:
        return ["The validation error was still falling in the last fifth of the epochs: train longer."]
    alike = "Training and validation errors are alike: a larger network or more epochs may still lower both."
    return [alike] if validation is not None else []


def _still_fell(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether the validation error of the forces fell by more than 3 % in the last fifth of the epochs."""
    column = next((name for name in history[-1] if name.startswith("forces mae")), None) if history else None
    if column is None or len(history) < _LEAST_EPOCHS_TO_JUDGE:
        return False
    return history[-1][column] < 0.97 * history[-len(history) // 5 - 1][column]


def _error_rows(parts: Sequence[Part]) -> Iterator[tuple[object, ...]]:
    for part in parts:
        for label in LABELS:
            reference, predicted = part.pairs(label)
            if reference.size:
                rmse = float(np.sqrt(np.mean((predicted - reference) ** 2)))
                shown = f"{1e3 * mean_absolute_error(reference, predicted):.3g}", f"{1e3 * rmse:.3g}"
                yield part.name, part.n_frames(label), label.name, *shown, per_atom(label, label.error_unit)


def _element_rows(part: Part) -> Iterator[tuple[object, ...]]:
    for symbol, error in part.element_errors().items():
        rmse = float(np.sqrt(np.mean(error**2)))
        yield symbol, len(error), f"{1e3 * np.abs(error).mean():.3g}", f"{1e3 * rmse:.3g}"
