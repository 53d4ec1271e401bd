"""Evaluate several blocks at the same time: each thread takes a block of its own.

Torch's own threads share the loop of one operation and wait for each other at its end. The operations of a block are
too short for that, but blocks need not wait for each other. One thread and many threads give the same bits.
"""

import collections
import functools
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.undisturbed import torch_threads

SERIAL_EDGES = 4000  # up to this number of edges, torch's threads mostly wait for each other

# The functions that a network evaluates and torch leaves to MKL.
VECTOR_FUNCTIONS = (torch.cos, torch.exp, torch.sin, torch.sqrt)

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadLock:
    """A reentrant lock among the threads of a process. Copies, and the copy in a forked process, are free.

    A plain lock that another thread held at the moment of a fork would stay locked in the forked process.
    """

    def __init__(self) -> None:
        self._of_process = {os.getpid(): threading.RLock()}

    def __enter__(self) -> None:
        lock = self._of_process.get(os.getpid())
        if lock is None:
            lock = self._of_process.setdefault(os.getpid(), threading.RLock())  # the same one for all threads
        lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._of_process[os.getpid()].release()

    def __reduce__(self) -> tuple[type["ThreadLock"], tuple[()]]:
        return ThreadLock, ()


@functools.cache
def warm_up_vector_functions() -> None:
    """Call each of ``VECTOR_FUNCTIONS`` from this thread alone, once, before any threaded evaluation.

    MKL chooses the code of such a function at its first call. If several of torch's threads make that call at the
    same time, one of them may get code that is right to only 11 bits (pytorch issue 188792; seen in 1 % of the
    processes with two threads).
    """
    for dtype in (torch.float32, torch.float64):
        for function in VECTOR_FUNCTIONS:
            function(torch.ones(1, dtype=dtype, device="cpu"))


def fitting_threads(*hierarchies: Hierarchy) -> int | None:
    """One, if all hierarchies are in the CPU's memory and so small that more threads hardly help; else None.

    Where another process is busy, one thread is several times as fast, because torch's threads wait for each other.
    """
    small = all(each.numbers.device.type == "cpu" and each.n_edges <= SERIAL_EDGES for each in hierarchies)
    return 1 if small else None


def in_order(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Generator[Result, None, None]:
    """Same as ``map``, but several threads work on the items. Results come in the order of the items.

    While the next result is not ready, the calling thread works on items as well. Call it within ``torch_threads(1)``
    and give it the number that this yields: otherwise torch's threads, after an operation that they shared, spin for
    milliseconds on processors that items could use. Every thread has its own gradient modes of torch, so the function
    must set those that it needs. Close the generator if you leave it early.

    Args:
        function: called once for each item.
        items: the work.
        threads: how many threads to use, including this one. If there are fewer items than threads, each item gets
            several of torch's threads.
    """
    workers = max(min(threads, len(items)), 1)
    share = threads // workers
    waiting = iter(range(len(items)))  # shared by the threads: each index goes to only one of them
    results: list[Future[Result]] = [Future() for _ in items]

    def work(number: int) -> None:
        try:
            results[number].set_result(function(items[number]))
        except BaseException as error:
            results[number].set_exception(error)
            _exhaust(waiting)  # after an error, no thread begins another item

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
        _exhaust(waiting)
        wait(helpers)


def _exhaust(iterator: Iterator[int]) -> None:
    collections.deque(iterator, maxlen=0)


@functools.lru_cache(maxsize=8)
def _pool(process: int, size: int, share: int) -> ThreadPoolExecutor:
    """A pool of threads, each of which may use ``share`` of torch's threads.

    The process id is part of the key, because a forked process does not have the threads of its parent.
    """
    all_started, before = threading.Barrier(size), torch.get_num_threads()

    def start(_: int) -> None:
        torch.get_num_threads()  # without this, torch would overwrite the number at the first operation
        torch.set_num_threads(share)
        all_started.wait()

    pool = ThreadPoolExecutor(size, thread_name_prefix="nbody")
    list(pool.map(start, range(size)))
    torch.set_num_threads(before)  # the setting also counts for threads that start later
    return pool
