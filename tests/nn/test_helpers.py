"""Helpers: they come in when a gate opens, whoever opens it, and nobody waits for one that does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
from llvmlite import ir

from tercet.nn.helpers import Helpers
from tercet.nn.jit.code import Code, Kernel, vector_shape
from tercet.nn.jit.waiting import fewer_than, wait_while

if vector_shape() is None:
    pytest.skip("this processor has no vectors that the kernels are for", allow_module_level=True)

IN_A_FORK = """
import os
import numpy as np, torch
from tercet.nn.by_rows import RowWeight
from tercet.nn import helpers
from tercet.nn.jit.product_kernel import ProductWords, product_kernel
nothing = np.zeros(len(ProductWords._fields), np.int64)  # of no units
before = helpers.HELPERS
before.run(product_kernel(True, 2, False), nothing.ctypes.data, 2)
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert helpers.HELPERS is not before
helpers.HELPERS.run(product_kernel(True, 2, False), nothing.ctypes.data, 2)
os._exit(7)
"""


class MeetWords(NamedTuple):
    """The words of `meet`: how many have met, how many are waited for, for how many in vain, and units as ever."""

    met: int = 0
    wanted: int = 2
    missed: int = 0
    units: int = 2
    next: int = 0
    done: int = 0


@Kernel
def meet(code: Code) -> None:
    """Write units of which each waits, for some seconds, until as many others are under way as are wanted."""
    word, one = MeetWords(*range(len(MeetWords._fields))), ir.Constant(ir.IntType(64), 1)
    met, wanted = code.place(word.met), code.word(word.wanted)
    with code.shared_loop(word):
        code.b.atomic_rmw("add", met, one, "seq_cst")
        wait_while(code, lambda: fewer_than(code, met, wanted), 1 << 27)
        with code.when(fewer_than(code, met, wanted)):
            code.b.atomic_rmw("add", code.place(word.missed), one, "seq_cst")


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    made = Helpers()
    yield made
    made.stop()


def run(helpers: Helpers, cores: int, **words: int) -> MeetWords:
    """Return the words after a meeting."""
    memory = np.array(MeetWords(**words), np.int64)
    helpers.run(meet(), memory.ctypes.data, cores)
    return MeetWords(*memory.tolist())


@pytest.mark.parametrize("cores", [2, 3])
def test_so_many_compute_side_by_side_awake_or_asleep(helpers: Helpers, cores: int) -> None:
    for pause in (0.0, 0.0, 0.1):
        time.sleep(pause)
        words = run(helpers, cores, wanted=cores, units=cores)
        assert words.met == words.done == cores and words.missed == 0


def test_no_more_come_in_than_are_wanted(helpers: Helpers) -> None:
    run(helpers, 3, wanted=3, units=3)
    for _ in range(50):  # the third is awake, and may not come in
        words = run(helpers, 2, wanted=2, units=2)
        assert words.missed == 0 and words.next <= 2 + 2  # each of two looks once in vain


def test_one_alone_does_all(helpers: Helpers) -> None:
    words = run(helpers, 1, wanted=1, units=50)
    assert words.done == 50 and helpers._threads == []


def test_many_share_them_and_all_is_done_once(helpers: Helpers) -> None:
    with ThreadPoolExecutor(8) as pool:
        for words in pool.map(lambda _: run(helpers, 2, wanted=0, units=7), range(2000)):
            assert words.met == words.done == 7 and words.next <= 7 + 2


def test_none_are_left_when_they_are_stopped(helpers: Helpers) -> None:
    run(helpers, 2)
    threads = list(helpers._threads)
    assert threads and all(thread.is_alive() for thread in threads)
    helpers.stop()
    assert not any(thread.is_alive() for thread in threads)
    assert run(helpers, 2, wanted=1, units=3).done == 3


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="this system has no fork")
def test_a_forked_process_has_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_FORK], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7, done.stderr
