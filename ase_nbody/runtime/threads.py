"""Several blocks at a time: threads that each evaluate a block of their own.

Torch's threads share the loops of one operation and wait for each other at its end; the operations of a block are too
short for that. Blocks do not wait for each other, and are evaluated by one thread as by many: bit by bit the same.
"""

import collections
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[int]:
    """Operations of this thread use so many of torch's threads within (None: as before); gives how many before.

    After an operation that they shared, torch's threads go on for milliseconds, waiting for the next one, on processors
    that a block could use: so ``in_order`` wants one thread around it, and to be told how many there are.
    """
    before = torch.get_num_threads()
    if number is None or number == before:
        yield before
        return
    torch.set_num_threads(number)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def in_order(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Generator[Result, None, None]:
    """``map`` by this and other threads, ``threads`` in all; fewer items have several of torch's threads each.

    This thread works on items while the next result is not there. Gradient modes of torch are each thread's own, so the
    function must set those that it needs. To be closed, if it is left before its end.
    """
    workers = max(min(threads, len(items)), 1)
    share = threads // workers
    waiting = iter(range(len(items)))  # gives each number to one thread only
    results: list[Future[Result]] = [Future() for _ in items]

    def work(number: int) -> None:
        try:
            results[number].set_result(function(items[number]))
        except BaseException as error:
            results[number].set_exception(error)
            collections.deque(waiting, maxlen=0)  # nothing is begun after an error

    def work_on() -> None:
        for number in waiting:
            work(number)

    helpers = [_pool(os.getpid(), workers - 1, share).submit(work_on) for _ in range(workers - 1)]
    try:
        for result in results:
            with torch_threads(share):
                while not result.done() and (number := next(waiting, None)) is not None:
                    work(number)
            yield result.result()
    finally:
        collections.deque(waiting, maxlen=0)
        wait(helpers)


@functools.lru_cache(maxsize=8)
def _pool(process: int, size: int, share: int) -> ThreadPoolExecutor:
    """Threads that work with a share of torch's threads each. A forked process has none of its parent's."""
    all_started, before = threading.Barrier(size), torch.get_num_threads()

    def start(_: int) -> None:
        torch.get_num_threads()  # else torch would set it anew at the first operation
        torch.set_num_threads(share)
        all_started.wait()

    pool = ThreadPoolExecutor(size, thread_name_prefix="nbody")
    list(pool.map(start, range(size)))
    torch.set_num_threads(before)  # for threads that are yet to come
    return pool
