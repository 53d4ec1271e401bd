"""Sets on disk: equal to the bit, never whole in memory, the same from any number of workers."""

import json
import pickle
import weakref
from dataclasses import fields

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import DataError, FrameStore, LazySamples, iterate_labelled, prepare, read_labelled
from ase_nbody.data.labels import BY_NAME
from ase_nbody.structure import Structure


@pytest.fixture
def path(tmp_path, systems):
    """Structures of several sizes and boundaries; some labels are missing."""
    frames = []
    for name in ("molecule", "crystal", "triclinic", "lone carbon", "slab in a box"):
        atoms, draw = systems[name](), np.random.default_rng(len(frames))
        atoms.info = {}
        if name == "molecule":
            atoms.info |= {"charge": -1.0, "dipole": draw.normal(size=3)}
            atoms.arrays["charges"] = draw.normal(size=len(atoms))
        labels = {"energy": -3.0 * len(frames), "forces": draw.normal(size=(len(atoms), 3))}
        if name == "crystal":
            labels["stress"] = draw.normal(size=6)
        if name == "triclinic":
            del labels["energy"]
            atoms.info["config_weight"] = 0.5
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(tmp_path / "data.extxyz", frames)
    return tmp_path / "data.extxyz"


@pytest.fixture
def store(path, tmp_path):
    return FrameStore.write(iterate_labelled(path), tmp_path / "store", {"file": "data"})


def same(one, other):
    structures = all(
        np.array_equal(getattr(one.structure, field.name), getattr(other.structure, field.name))
        for field in fields(Structure)
    )
    return structures and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in (*BY_NAME, "weights")
    )


def test_what_is_written_comes_back_to_the_bit(store, path):
    expected = read_labelled(path)
    assert len(store) == len(expected) == 5
    assert store[0].structure.charge == -1.0
    assert np.isfinite(store[0].charges).all()
    assert np.isfinite(store[0].dipole).all()
    assert np.isnan(store[1].charges).all()
    assert all(same(*pair) for pair in zip(store, expected, strict=True))
    assert all(same(*pair) for pair in zip(store[1:4:2], expected[1:4:2], strict=True))
    assert same(store[-1], expected[-1])
    with pytest.raises(IndexError):
        store[5]


def test_parts_of_it_and_copies_in_other_processes(store):
    part = pickle.loads(pickle.dumps(store.take([3, 0, 2]).take([2, 1])))
    assert len(part) == 2
    assert same(part[0], store[2])
    assert same(part[1], store[0])


def test_structures_are_not_kept_while_they_are_written(path, tmp_path):
    alive: list[weakref.ref] = []

    def watched():
        for frame in iterate_labelled(path):
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(reference() is not None for reference in alive) <= 2

    assert len(FrameStore.write(watched(), tmp_path / "store", {})) == len(alive) == 5


def test_it_is_written_once_and_anew_for_other_data(store, path):
    def never():
        raise AssertionError("read again")
        yield

    assert len(FrameStore.write(never(), store.folder, {"file": "data"})) == 5
    assert len(FrameStore.write(iterate_labelled(path, ":2"), store.folder, {"file": "other"})) == 2


def test_a_folder_of_another_layout_is_written_anew(store, path):
    seal = store.folder / "key.json"
    seal.write_text(json.dumps(json.loads(seal.read_text()) | {"layout": "of an earlier version"}))
    assert len(FrameStore.write(iterate_labelled(path, ":2"), store.folder, {"file": "data"})) == 2


def test_a_write_that_was_killed_is_not_taken(path, tmp_path):
    def killed():
        yield from iterate_labelled(path, ":3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FrameStore.write(killed(), tmp_path / "store", {"file": "data"})
    assert len(FrameStore.write(iterate_labelled(path), tmp_path / "store", {"file": "data"})) == 5


@pytest.mark.parametrize("name", ["notes.txt", "train/frames.bin"])
def test_a_folder_of_something_else_is_refused(name, store, path, tmp_path):
    for folder in (store.folder, tmp_path / "mine"):
        foreign = folder / name
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_text("mine")
        with pytest.raises(DataError, match="holds something other than frames"):
            FrameStore.write(iterate_labelled(path), folder, {"file": "other"})
        assert foreign.read_text() == "mine"
        FrameStore.remove(folder)
        assert foreign.read_text() == "mine"


def test_a_seal_that_was_cut_short_is_none(store, path):
    (store.folder / "key.json").write_text('{"layout')
    assert len(FrameStore.write(iterate_labelled(path, ":2"), store.folder, {"file": "data"})) == 2


def tensors(sample):
    geometry = (sample.positions, sample.cells, sample.total_charges)
    return [*sample.hierarchy.tensors(), *geometry, *sample.labels.values(), *sample.weights.values()]


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_do_not_depend_on_the_workers(workers, store, path, network):
    alone, lazy = prepare(read_labelled(path), network.config), LazySamples(store, network.config)
    for samples in (prepare(store, network.config, workers), [lazy[index] for index in range(5)]):
        for one, other in zip(samples, alone, strict=True):
            assert all(
                torch.equal(*(table.nan_to_num(-9.0) if table.is_floating_point() else table for table in pair))
                for pair in zip(tensors(one), tensors(other), strict=True)
            )


def test_memory_is_that_of_the_tensors(store, network):
    samples = prepare(store, network.config)
    assert LazySamples(store, network.config).memory == sum(sample.memory for sample in samples)
    assert samples[0].memory > 8 * samples[0].positions.numel()
