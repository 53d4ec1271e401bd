"""A faster way that fails is given up at once, and the user is told so once."""

import copy
import errno
import os
import pickle
import warnings
from pathlib import Path

import pytest

from ase_nbody.runtime.fallback import Fallback, first_line


def evaluate(fallback, error):
    if not fallback.active:
        try:
            raise error
        except RuntimeError as caught:
            fallback.take(caught)
    return "slow"


def test_the_faster_way_is_used_until_it_fails():
    fallback = Fallback("evaluating eagerly")
    assert (fallback.active, fallback.reason) == (False, None)
    with pytest.warns(RuntimeWarning, match="^evaluating eagerly: no compiler$") as caught:
        assert evaluate(fallback, RuntimeError("no compiler\nand much more")) == "slow"
    assert [warning.filename for warning in caught] == [__file__]
    assert (fallback.active, fallback.reason) == (True, "no compiler")


def test_it_warns_once_and_keeps_the_first_reason():
    fallback = Fallback("evaluating eagerly")
    with pytest.warns(RuntimeWarning, match="first"):
        fallback.take(RuntimeError("first"))
    fallback.take(RuntimeError("second"))  # another warning would be an error here
    assert fallback.reason == "first"


def test_the_warning_names_the_caller():
    fallback = Fallback("evaluating eagerly")
    with pytest.warns(RuntimeWarning) as caught:
        evaluate(fallback, RuntimeError("wrong"))
    line = Path(__file__).read_text().splitlines()[caught[0].lineno - 1]
    assert "evaluate(fallback" in line


def test_it_is_taken_even_where_the_warning_is_an_error():
    fallback = Fallback("evaluating eagerly")
    with pytest.raises(RuntimeWarning):
        fallback.take(RuntimeError("wrong"))
    assert fallback.active


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_do_not_try_again(copied):
    fallback = Fallback("evaluating eagerly")
    with pytest.warns(RuntimeWarning):
        fallback.take(RuntimeError("wrong"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copied(fallback).take(RuntimeError("other"))
    assert copied(fallback).active


@pytest.mark.parametrize(
    ("error", "line"),
    [(KeyError(), "KeyError"), (ValueError("\n one\ntwo"), "one"), (OSError(2, "gone"), "[Errno 2] gone")],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line


def test_a_full_disk_is_said_wherever_a_compiler_says_it():
    error = RuntimeError(
        f"C++ compile error\n\nCommand:\ng++ x.cpp\n\n/cache/x.s: fatal error: {os.strerror(errno.ENOSPC)}\n"
    )
    assert first_line(error) == f"C++ compile error: /cache/x.s: fatal error: {os.strerror(errno.ENOSPC)}"
