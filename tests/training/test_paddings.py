"""Common sizes for batches of many sizes: what is chosen, and that a training with them is that without."""

import json

import numpy as np
import pytest

from ase_nbody.hierarchy.ghosts import envelope, least_with_ghosts
from ase_nbody.training.paddings import Paddings, common_sizes, compiled_time, eager_time


def batches(n, seed=0, most=250):
    """Sizes of batches of organic molecules of up to ``most`` atoms: rows of 24 to 48 edges, and half as many parts."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = int(random.integers(most - 30, most + 1))
        heavy = int(atoms * random.uniform(0.42, 0.52))
        first = int(random.choice([24, 32, 40, 48], p=[0.2, 0.55, 0.15, 0.1]))
        second = int(random.choice([16, 24], p=[0.75, 0.25]))
        found.append((int(random.integers(5, 19)), atoms, atoms, atoms, first, first, heavy, heavy, second, second))
    return found


def times(paddings, some):
    rooms = [paddings.room_for(sizes) for sizes in some]
    return [eager_time(sizes) if room is None else compiled_time(room) for sizes, room in zip(some, rooms, strict=True)]


def trained(paddings, some):
    """Count batches as a training does, and return the times of their steps."""
    found = times(paddings, some)
    for number, sizes in enumerate(some):
        found[number] = times(paddings, [sizes])[0]
        paddings.add(sizes)
    return found


def test_few_sizes_serve_nearly_all_batches():
    paddings = Paddings()
    trained(paddings, batches(20_000))
    assert len(paddings.chosen) == 4
    new = batches(1000, seed=1)
    assert sum(times(paddings, new)) < 0.9 * sum(map(eager_time, new))
    assert sum(times(paddings, new)) < 1.2 * sum(map(compiled_time, new))


def test_nothing_is_compiled_before_steps_have_cost_as_much():
    paddings, spent = Paddings(), 0.0
    for sizes in batches(10_000):
        spent += times(paddings, [sizes])[0]
        paddings.add(sizes)
        assert len(paddings.chosen) * paddings.compilation <= spent


def test_the_first_choice_leaves_out_rare_long_rows():
    usual = [(9, 240, 240, 240, 32, 32, 110, 110, 16, 16)] * 95
    rare = [(2, 240, 240, 240, 400, 400, 110, 110, 200, 200)] * 5
    room = common_sizes(usual + rare, list(map(eager_time, usual + rare)))
    assert room[4] == 32
    assert all(size <= limit for size, limit in zip(least_with_ghosts(usual[0]), room, strict=True))
    many = usual[:5] + rare * 20
    assert common_sizes(many, list(map(eager_time, many)))[4] == 400
    assert common_sizes(many, [1.0] * len(many)) is None


def test_a_batch_does_not_get_many_times_its_size_of_ghosts():
    paddings = Paddings(most=1, compilation=0.0, fewest=1)
    paddings.add((9, 2400, 2400, 2400, 32, 32, 1100, 1100, 16, 16))
    assert len(paddings.chosen) == 1
    assert paddings.room_for((8, 2200, 2200, 2200, 32, 32, 1080, 1080, 16, 16)) == paddings.chosen[0]
    assert paddings.room_for((1, 50, 50, 50, 24, 24, 20, 20, 16, 16)) is None


def test_what_is_kept_is_bounded_and_forgotten_once_it_is_compiled_for_itself():
    paddings = Paddings(most=1, compilation=1e300)
    for sizes in batches(300):
        paddings.add(sizes)
    assert len(paddings.state()["latest"]) == 100
    paddings.forget(batches(300)[-1])
    assert len(paddings.state()["latest"]) < 100
    paddings.compilation = 0.0
    paddings.add(batches(1)[0])
    assert len(paddings.chosen) == 1
    assert paddings.state()["latest"] == []


def test_a_resumed_training_chooses_the_same():
    unbroken, broken = (Paddings(compilation=4e5) for _ in range(2))
    for number, sizes in enumerate(batches(600)):
        if number % 7 == 0:
            state = json.loads(json.dumps(broken.state()))
            broken = Paddings(compilation=4e5)
            broken.restore(state)
        for paddings in (unbroken, broken):
            paddings.add(sizes)
        assert unbroken.chosen == broken.chosen
    assert unbroken.state() == broken.state()
    assert len(unbroken.chosen) > 1


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_is_at_least_as_good_as_room_for_all(seed):
    some = batches(60, seed)
    eager = list(map(eager_time, some))
    good, everything = Paddings(), Paddings()
    good.chosen.append(common_sizes(some, eager))
    largest = envelope(list(map(least_with_ghosts, some)))
    everything.chosen.append(tuple(-(-size // 16) * 16 for size in largest))
    assert sum(times(good, some)) <= min(sum(times(everything, some)), sum(eager))
