"""Freed memory is used again: pages are not given back to the system and cleared anew with every step."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, threading, torch
from ase_nbody.runtime.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()
def steps():
    for step in range(30):
        if step == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(size) for size in (1_000_000, 5_000_000, 12_000_000)]
        del blocks
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if "thread" in sys.argv:
    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()
else:
    steps()
"""


def faults(*arguments):
    command = [sys.executable, "-c", STEPS, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("where", ["here", "thread"])
def test_freed_memory_is_not_given_back(where):
    assert faults("keep", where) < 0.1 * faults(where)
