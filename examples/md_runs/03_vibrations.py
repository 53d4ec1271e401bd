"""Conformers and vibrations of ethanol: is the model right near its minima, and how far is it from its reference data?

Relax trans and gauche, compute harmonic frequencies by finite differences of the forces, and compare them with
experiment. If rMD17 is available, compare energies and forces with the reference as well. Units: eV, Angstrom, cm^-1.
"""

import tempfile
from pathlib import Path

import ase
import numpy as np
from ase import units
from ase.io import read
from ase.vibrations import Vibrations, VibrationsData
from common import CONFORMERS, command_line, ethanol, pyplot, run_script, save

from ase_nbody import NBodyCalculator

# Fundamentals of trans-ethanol, by their symmetry under reflection in the plane of the heavy atoms. They are
# anharmonic; the O-H stretch was measured in a matrix. NIST CCCBDB, Standard Reference Database 101, release 22 (2022).
EXPERIMENT_PER_CM = {
    "A'": (3653, 2984, 2939, 2900, 1490, 1464, 1412, 1371, 1256, 1091, 1028, 888, 417),
    "A''": (2991, 2910, 1446, 1275, 1161, 812, 251, 200),
}
GAUCHE_ABOVE_TRANS_MEV = 5  # with zero-point energies: R. Kakar, C. Quade, J. Chem. Phys. 72, 4300 (1980)
FREE_MODES = 6  # translations and rotations of the whole molecule: their wavenumbers are near zero
UNITS = {"energy": "eV", "forces": "eV/Angstrom"}
REFERENCE = Path(__file__).resolve().parents[3] / "shared/data/rmd17_ethanol/test.extxyz"


def vibrations(atoms: ase.Atoms) -> VibrationsData:
    """Harmonic vibrations, from central differences of the forces with a step of 0.005 Angstrom."""
    with tempfile.TemporaryDirectory() as folder:
        differences = Vibrations(atoms, name=f"{folder}/vibrations", delta=0.005)
        differences.run()
        return differences.get_vibrations()


def wavenumbers(data: VibrationsData) -> np.ndarray:
    """Wavenumbers in cm^-1, ascending; imaginary ones are negative."""
    frequencies = data.get_frequencies()
    return frequencies.real - frequencies.imag


def zero_point(data: VibrationsData) -> float:
    """The zero-point energy in eV."""
    return 0.5 * units.invcm * wavenumbers(data)[FREE_MODES:].sum()


def symmetries(atoms: ase.Atoms, data: VibrationsData) -> np.ndarray:
    """A' or A'' for each mode of trans: in A'' modes, the atoms in the plane z = 0 move out of the plane."""
    moves = np.square(data.get_modes()[:, np.abs(atoms.positions[:, 2]) < 0.1]).sum(axis=1)  # (modes, 3)
    return np.where(moves[:, 2] > moves[:, :2].sum(axis=1), "A''", "A'")


def compare_with_experiment(atoms: ase.Atoms, data: VibrationsData) -> np.ndarray:
    """Print a table, and return its rows (model, experiment) in cm^-1."""
    rows = []
    symmetry = symmetries(atoms, data)[FREE_MODES:]
    found = {label: int(np.sum(symmetry == label)) for label in EXPERIMENT_PER_CM}
    if found != {label: len(bands) for label, bands in EXPERIMENT_PER_CM.items()}:
        raise SystemExit(
            f"error: trans-ethanol has 13 A' and 8 A'' vibrations, but in this model it has {found}: its "
            "minimum is not planar, so it cannot be compared with experiment line by line."
        )
    print("Vibrations of trans-ethanol in cm^-1: model (harmonic), experiment (anharmonic), difference")
    for label, experiment in EXPERIMENT_PER_CM.items():
        model = wavenumbers(data)[FREE_MODES:][symmetry == label][::-1]
        for ours, theirs in zip(model, experiment, strict=True):
            print(f"  {label:3} {ours:7.0f} {theirs:7d} {ours - theirs:+7.0f}")
            rows.append((ours, theirs))
    return np.array(rows)


def compare_with_reference(model: str, frames: list[ase.Atoms]) -> dict[str, np.ndarray]:
    """Rows (reference, model) of the energies above the lowest one in eV, and of force components in eV/Angstrom."""
    calculator = NBodyCalculator(model)
    energies, forces = [], []
    for frame in frames:
        energies.append((frame.get_potential_energy(), calculator.get_potential_energy(frame)))
        forces.append((frame.get_forces().ravel(), calculator.get_forces(frame).ravel()))
    lowest = min(truth for truth, _ in energies)
    return {"energy": np.array(energies).T - lowest, "forces": np.concatenate(forces, axis=1)}


def plot_spectrum(axes: pyplot.Axes, bands: dict[str, np.ndarray], experiment: np.ndarray, width: float = 15.0) -> None:
    """Draw a stick and a Gaussian for every vibration, and a line for every measured one."""
    grid = np.arange(0.0, 4000.0)
    for colour, (name, band) in zip(("C0", "C1"), bands.items(), strict=True):
        axes.plot(grid, np.exp(-(((grid[:, None] - band) / width) ** 2) / 2).sum(axis=1), color=colour, label=name)
        axes.vlines(band, 0.0, 0.4, color=colour, lw=1.0)
    axes.vlines(experiment, -0.6, -0.1, color="black", lw=1.0, label="experiment, trans")
    axes.set(xlabel="wavenumber / cm$^{-1}$", ylabel="density of vibrations", xlim=(4000, 0), yticks=[])
    axes.legend(loc="upper center")


def plot(spectra: dict[str, np.ndarray], experiment: np.ndarray, parities: dict[str, np.ndarray]) -> pyplot.Figure:
    layout = [["spectrum"] * 2, list(parities)] if parities else [["spectrum"]]
    figure, axes = pyplot.subplot_mosaic(layout, figsize=(8, 4 * len(layout)), layout="constrained")
    plot_spectrum(axes["spectrum"], spectra, experiment)
    for quantity, pairs in parities.items():
        difference = 1000 * (pairs[1] - pairs[0])
        mae, rmse = np.abs(difference).mean(), np.sqrt(np.square(difference).mean())
        unit = UNITS[quantity]
        ends = (pairs.min(), pairs.max())
        axes[quantity].plot(ends, ends, color="black", lw=0.5)
        axes[quantity].plot(*pairs, ".", ms=2)
        axes[quantity].set(xlabel=f"reference {quantity} / {unit}", ylabel=f"model {quantity} / {unit}", aspect="equal")
        axes[quantity].annotate(
            f"MAE {mae:.3g} m{unit}\nRMSE {rmse:.3g} m{unit}", (0.05, 0.95), xycoords="axes fraction", va="top"
        )
    return figure


def main() -> None:
    parser = command_line(__doc__, model="ethanol")
    parser.add_argument(
        "--data",
        type=Path,
        help="labelled frames of ethanol (default for the shipped model: rMD17's test set, if found)",
    )
    options = parser.parse_args()

    relaxed = {name: ethanol(options.model, name, fmax=1e-4) for name in CONFORMERS}
    energies = {name: atoms.get_potential_energy() for name, atoms in relaxed.items()}
    modes = {name: vibrations(atoms) for name, atoms in relaxed.items()}
    spectra = {name: wavenumbers(data)[FREE_MODES:] for name, data in modes.items()}
    for name, data in modes.items():
        free = np.abs(wavenumbers(data)[:FREE_MODES]).max()
        if free > 50:
            raise SystemExit(f"{name} is not a minimum of this model: a vibration of {wavenumbers(data)[0]:.0f} cm^-1.")
        print(f"{name}: {energies[name]:.5f} eV, vibrations from {spectra[name][0]:.0f} to", end=" ")
        print(f"{spectra[name][-1]:.0f} cm^-1, free motions within {free:.1f} cm^-1 of zero.")
    difference = energies["gauche"] - energies["trans"]
    with_zero_point = difference + zero_point(modes["gauche"]) - zero_point(modes["trans"])
    print(f"gauche above trans: {1000 * difference:.1f} meV, with zero-point energies", end=" ")
    print(f"{1000 * with_zero_point:.1f} meV (experiment: about {GAUCHE_ABOVE_TRANS_MEV} meV).")
    compared = compare_with_experiment(relaxed["trans"], modes["trans"])
    deviation = np.abs(compared[:, 0] - compared[:, 1]).mean()
    print(f"Mean absolute difference from experiment: {deviation:.0f} cm^-1, anharmonicity and theory included.")

    parities = {}
    shipped = options.model == parser.get_default("model")  # another model may have learnt another theory
    path = options.data or (REFERENCE if shipped and REFERENCE.is_file() else None)
    if path:
        frames = read(path, "::100" if options.quick else "::5")
        parities = compare_with_reference(options.model, frames)
        errors = {quantity: 1000 * np.abs(model - truth).mean() for quantity, (truth, model) in parities.items()}
        print(f"Mean absolute errors on {len(frames)} frames of {path.name}:", end=" ")
        print(f"energy {errors['energy']:.2f} meV, forces {errors['forces']:.2f} meV/Angstrom.")
    else:
        print("No reference data found: give --data to compare with them.")
    save(
        options.output / "03_vibrations",
        "trans_cm-1,trans_experiment_cm-1",
        compared,
        plot(spectra, compared[:, 1], parities),
    )


if __name__ == "__main__":
    run_script(main)
