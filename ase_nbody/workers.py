"""Several blocks at a time: threads that each evaluate a block of their own.

Torch's threads share the loops of one operation and wait for each other at its end; the operations of a block are too
short for that. Blocks do not wait for each other, and are evaluated by one thread as by many: bit by bit the same.
"""

import collections
import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
    """``map`` by this and other threads, as many as torch may use, which share torch's threads between them.

    Gradient modes of torch are each thread's own, so the function must set those that it needs.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(items))
    if workers < 2:
        return map(function, items)
    waiting = iter(range(len(items)))  # gives each number to one thread only
    results: dict[int, Result] = {}

    def work() -> None:
        for number in waiting:
            results[number] = function(items[number])

    share = threads // workers
    helpers = [_pool(os.getpid(), workers - 1, share).submit(work) for _ in range(workers - 1)]
    torch.set_num_threads(share)
    try:
        work()
    finally:
        torch.set_num_threads(threads)
        collections.deque(waiting, maxlen=0)  # nothing is begun after an error
        wait(helpers)
    for helper in helpers:
        helper.result()
    return [results[number] for number in range(len(items))]


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
