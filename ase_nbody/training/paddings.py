"""A few common sizes to which batches of many different sizes are padded, so that a few compilations serve them all."""

from collections.abc import Mapping, Sequence
from typing import Any

from ase_nbody.hierarchy.ghosts import Sizes, envelope, least_with_ghosts, of_levels

# Sizes with ghosts are rounded up to these multiples, so that batches a little larger than those before have room.
_MULTIPLES_OF_ALL, _MULTIPLES_OF_LEVEL = (8, 16), (16, 16, 8, 8)
# Times are in units of the time of one edge in a compiled step, measured with 64 channels on one core: about 3 us.
_EDGES_PER_PART = 48
_EAGER_FACTOR, _EAGER_EDGES = 1.3, 5000  # the latter for torch's own work
_EDGES_PER_COMPILATION = 15e6  # a quarter of the time of one, because most trainings are long
_FEWEST, _LATEST = 40, 100  # batches from whose sizes common ones are chosen


class Paddings:
    """Chooses common sizes from those of the latest batches.

    Each batch loses time against a step that is compiled for its own sizes: an eager step takes longer, and so do
    ghosts. When the loss adds up to the price of a compilation, further common sizes are chosen, those that save the
    most. So short trainings compile nothing, and a few batches with very long rows do not slow down the others.

    Args:
        most: largest number of common sizes.
        compilation: price of a compilation, in units of the time of one edge in a compiled step.
        fewest: number of batches before sizes are chosen.
    """

    def __init__(self, *, most: int = 4, compilation: float = _EDGES_PER_COMPILATION, fewest: int = _FEWEST) -> None:
        self.most, self.compilation, self.fewest = most, compilation, fewest
        self.chosen: list[Sizes] = []
        self._latest: list[Sizes] = []
        self._lost = 0.0

    def room_for(self, sizes: Sizes) -> Sizes | None:
        """The chosen sizes that serve a batch of these sizes fastest; None if it is evaluated sooner eagerly."""
        fitting = [room for room in self.chosen if _fits(least_with_ghosts(sizes), room)]
        best = min(fitting, key=compiled_time, default=None)
        return best if best is not None and compiled_time(best) <= eager_time(sizes) else None

    def add(self, sizes: Sizes) -> None:
        """Count a batch that is not compiled for its own sizes, and choose further common sizes if it is time."""
        if len(self.chosen) == self.most:
            return
        self._latest = [*self._latest, sizes][-_LATEST:]
        self._lost += max(0.0, self._time(sizes) - compiled_time(_rounded(least_with_ghosts(sizes))))
        if self._lost >= self.compilation and len(self._latest) >= self.fewest:
            self._lost = 0.0
            room = common_sizes(self._latest, [self._time(each) for each in self._latest])
            self.chosen += [] if room is None else [room]
            self._latest = [] if len(self.chosen) == self.most else self._latest

    def forget(self, sizes: Sizes) -> None:
        """Leave out batches of these sizes, which are compiled for themselves now."""
        self._latest = [each for each in self._latest if each != sizes]

    def state(self) -> dict[str, Any]:
        """All that later choices depend on."""
        return {"chosen": list(map(list, self.chosen)), "latest": list(map(list, self._latest)), "lost": self._lost}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.chosen, self._latest = (list(map(tuple, state.get(name, ()))) for name in ("chosen", "latest"))
        self._lost = state.get("lost", 0.0)

    def _time(self, sizes: Sizes) -> float:
        room = self.room_for(sizes)
        return eager_time(sizes) if room is None else compiled_time(room)


def compiled_time(sizes: Sizes) -> float:
    """The time of a compiled step, in units of that for one edge: a part costs as much as 48 edges."""
    return float(sum(parts * (_EDGES_PER_PART + width) for parts, _, width, _ in of_levels(sizes)))


def eager_time(sizes: Sizes) -> float:
    """The time of an eager step in the same unit."""
    return _EAGER_FACTOR * compiled_time(sizes) + _EAGER_EDGES


def common_sizes(several: Sequence[Sizes], times: Sequence[float]) -> Sizes | None:
    """The sizes that save the most time; None if none save any.

    The search begins with room for all and gives up, again and again, the batches that are largest along the axis along
    which this costs the least time.

    Args:
        several: sizes of batches without ghosts.
        times: how long each batch takes now.
    """
    least = [least_with_ghosts(sizes) for sizes in several]

    def total(served: Sequence[int]) -> float:
        room = _rounded(envelope([least[number] for number in served]))
        compiled = compiled_time(room)
        pairs = zip(least, times, strict=True)
        return sum(min(compiled, now) if _fits(sizes, room) else now for sizes, now in pairs)

    served, best = list(range(len(several))), (sum(times), list[int]())
    while served:
        best = min(best, (total(served), served))
        limits = envelope([least[number] for number in served])
        fewer = [[number for number in served if least[number][axis] < size] for axis, size in enumerate(limits)]
        served = min(filter(None, fewer), key=total, default=[])
    return _rounded(envelope([least[number] for number in best[1]])) if best[1] else None


def _fits(sizes: Sizes, room: Sizes) -> bool:
    return all(size <= limit for size, limit in zip(sizes, room, strict=True))


def _rounded(sizes: Sizes) -> Sizes:
    multiples = (*_MULTIPLES_OF_ALL, *_MULTIPLES_OF_LEVEL * len(of_levels(sizes)))
    return tuple(-(-size // multiple) * multiple for size, multiple in zip(sizes, multiples, strict=True))
