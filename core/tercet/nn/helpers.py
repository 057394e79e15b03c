"""Helpers: threads that lend their cores to whoever computes, and sleep when nobody has for a while.

OpenMP keeps a team for each thread that computes with several cores, and waits for all of a team. These helpers are the
process's, come in when they can (`jit/gate_kernels.py`), and so serve whichever thread has something to share out.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from tercet.nn.jit.code import Compiled
from tercet.nn.jit.gate_kernels import LINE, Gate, HelpWords, LeadWords, help_kernel, lead_kernel
from tercet.threads import start_deep

_AWAKE_S = 0.005  # that a helper looks out for more to do: queries one after the other are further apart than 2 ms
_TRIALS, _TRIAL_LOOKS = 8, 1000  # looks that go by before the core is offered to others


@dataclass
class _Helper:
    """A helper, by its place among all, and how it is woken; asleep only where `awake` is False."""

    place: int
    call: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    awake: bool = False


class Helpers:
    """Threads, made when they are first asked for. Thread-safe."""

    def __init__(self) -> None:
        self._gate = np.zeros(LINE * (len(Gate._fields) + 1), np.int64)
        self._start = self._gate.ctypes.data + -self._gate.ctypes.data % (LINE * self._gate.itemsize)
        self._helpers: list[_Helper] = []
        self._threads: list[threading.Thread] = []
        self._leading = threading.Lock()
        self._stopped = False

    def run(self, function: Compiled, words: int, cores: int) -> None:
        """Run a function, given the address of its words, with the help of so many cores less one.

        They share its work out, those that come in; where another thread has the helpers just now, it is done alone.
        """
        if cores < 2 or not self._leading.acquire(blocking=False):
            function.run(words)
            return
        try:
            lead, given = lead_kernel(), np.array(LeadWords(self._start, function.address, words, cores - 1), np.int64)
            self._wake(cores - 1)  # just before, or they would go back to sleep
            lead.run(given.ctypes.data)
        finally:
            self._leading.release()

    def stop(self) -> None:
        """End the threads; what runs from then on runs alone."""
        with self._leading:
            self._stopped = True
            for helper in self._helpers:
                helper.call.release()
            for thread in self._threads:
                thread.join()
            self._helpers.clear()

    def _wake(self, count: int) -> None:
        """Have so many helpers be awake soon."""
        if self._stopped:
            return
        while len(self._helpers) < count:
            self._add()
        for helper in self._helpers[:count]:
            if not helper.awake:
                helper.awake = True
                helper.call.release()

    def _add(self) -> None:
        helper = _Helper(len(self._helpers))
        thread = threading.Thread(target=self._serve, args=(helper,), name="tercet-helper", daemon=True)
        start_deep(thread)
        self._helpers.append(helper)
        self._threads.append(thread)

    def _serve(self, helper: _Helper) -> None:
        kernel = help_kernel()
        words = np.array(HelpWords(self._start, helper.place, looks=int(_AWAKE_S / _look_s())), np.int64)
        while True:
            helper.call.acquire()
            if self._stopped:
                return
            kernel.run(words.ctypes.data)
            helper.awake = False


@cache
def _look_s() -> float:
    """Return how long a look at a gate takes, the least of some trials at one that stays closed."""
    closed, kernel, tried = np.zeros(LINE * len(Gate._fields), np.int64), help_kernel(), []
    words = np.array(HelpWords(closed.ctypes.data, 0, _TRIAL_LOOKS), np.int64)
    for _ in range(_TRIALS):
        start = time.perf_counter()
        kernel.run(words.ctypes.data)
        tried.append(time.perf_counter() - start)
    return min(tried) / _TRIAL_LOOKS


HELPERS = Helpers()
atexit.register(lambda: HELPERS.stop())


def _anew() -> None:
    global HELPERS
    HELPERS = Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
