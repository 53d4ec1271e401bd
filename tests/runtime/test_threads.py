"""Several threads give the results of one thread, bit by bit. Errors reach the caller, and no thread stays busy."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import torch

from ase_nbody.prediction import Prediction
from ase_nbody.runtime import blocks, runner
from ase_nbody.runtime.runner import Runner
from ase_nbody.runtime.threads import in_order
from ase_nbody.undisturbed import torch_threads, undisturbed


@pytest.fixture(params=[2, 3, 8])
def threads(request):
    """Set the number of torch's threads while the test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_several_threads(threads):
    together = threading.Barrier(threads)  # it breaks unless that many threads wait at the same time

    def square(number):
        if number < threads:
            together.wait(timeout=20.0)
        return number**2, torch.get_num_threads()

    found = list(in_order(square, range(20), threads))
    assert found == [(number**2, 1) for number in range(20)]
    assert torch.get_num_threads() == threads


def test_few_items_get_several_of_torchs_threads_each(threads):
    found = list(in_order(lambda _: torch.get_num_threads(), range(2), threads))
    assert found == [threads // 2] * 2


def test_one_thread_takes_one_after_the_other():
    assert list(in_order(lambda _: threading.current_thread(), range(3), 1)) == [threading.main_thread()] * 3


def test_no_items():
    assert list(in_order(abs, [], 2)) == []


def test_results_come_while_others_are_worked_on():
    """Items of the other thread end only after the first result was seen."""
    seen = threading.Event()
    here = threading.current_thread()

    def work(number):
        if number and threading.current_thread() is not here:
            assert seen.wait(timeout=20.0)
        return number

    with closing(in_order(work, range(8), 2)) as results:
        for number, result in enumerate(results):
            assert result == number
            if number == 0:
                seen.set()


def test_a_reader_who_leaves_ends_the_work(threads):
    begun = []
    with closing(in_order(begun.append, range(100), threads)) as results:
        next(results)
    count = len(begun)
    assert 0 < count <= 100
    assert list(in_order(abs, range(10), threads)) == list(range(10))  # no thread is still busy
    assert len(begun) == count
    assert torch.get_num_threads() == threads


def test_an_error_comes_out_and_ends_the_work(threads):
    begun = []

    def fail(number):
        begun.append(number)
        raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item"):
        list(in_order(fail, range(100), threads))
    assert len(begun) <= threads  # each thread began at most one
    assert torch.get_num_threads() == threads
    assert list(in_order(abs, range(10), threads)) == list(range(10))  # the threads are ready for more work


def test_an_evaluation_is_the_same_bit_by_bit_for_any_threads(threads, network, systems, hierarchy_of, monkeypatch):
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (3, 3))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 6)
    atoms = systems["triclinic"]().repeat(2)
    given = hierarchy_of(network, atoms), torch.from_numpy(atoms.positions), torch.tensor(atoms.cell.array).unsqueeze(0)
    found = Runner(network)(*given)
    torch.set_num_threads(1)
    expected = Runner(network)(*given)
    for name in Prediction.__dataclass_fields__:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0.0, atol=0.0)


def _count(queue):
    queue.put(list(in_order(abs, range(6), torch.get_num_threads())))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system does not fork")
def test_a_forked_process_has_threads_of_its_own(threads):
    list(in_order(abs, range(6), threads))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_count, args=(queue,))
    process.start()
    try:
        assert queue.get(timeout=30.0) == list(range(6))
    finally:
        process.kill()
        process.join()


def test_a_thread_that_comes_during_an_evaluation_gets_the_threads_of_the_program(threads):
    """It took the number of that evaluation for its own, and left it to all others when it ended."""
    inside, may_end, found = threading.Event(), threading.Event(), []

    def first():
        with undisturbed(), torch_threads(1):
            inside.set()
            assert may_end.wait(timeout=20.0)

    def second():
        with undisturbed(), torch_threads(threads + 1):
            pass
        found.append(torch.get_num_threads())

    def third():
        found.append(torch.get_num_threads())

    helper = threading.Thread(target=first)
    helper.start()
    assert inside.wait(timeout=20.0)
    _run(second)
    may_end.set()
    helper.join()
    _run(third)
    assert [*found, torch.get_num_threads()] == [threads] * 3


def test_a_number_that_a_thread_chose_itself_stays(threads):
    def own():
        torch.set_num_threads(threads + 2)
        with undisturbed(), torch_threads(1):
            pass
        assert torch.get_num_threads() == threads + 2

    with torch_threads(1):
        _run(own)


def _run(function):
    """Run a function in a thread that is new to torch; its errors come out."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result()
