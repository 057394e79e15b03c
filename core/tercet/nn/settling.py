"""Settling: what is done to a model's weights after its first batch, when a core has nothing else to do."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from weakref import ref

import torch
from torch import Tensor, nn

from tercet.nn import large_pages
from tercet.nn.by_rows import RowWeight
from tercet.nn.linear import Linear
from tercet.nn.team import compute_with

log = logging.getLogger(__name__)


def settle(module: nn.Module) -> None:
    """Have weights by rows below `module` laid into panels, and return at once.

    Products give the same bytes before and after. A weight that is let go of meanwhile is left as it is.
    """
    products = (part.packed for part in module.modules() if isinstance(part, Linear))
    weights = [weight for weight in products if isinstance(weight, RowWeight)]
    if not weights:
        return
    try:
        sizes = [weight.nbytes for weight in weights]
        places = torch.split(large_pages.empty(sum(sizes)), sizes)
    except (OSError, RuntimeError) as error:
        _warn(error)
        return
    for weight, place in zip(weights, places, strict=True):
        SETTLER.put(partial(_lay, ref(weight), place))


def _lay(held: ref[RowWeight], place: Tensor) -> None:
    try:
        if weight := held():
            weight.lay(place)
    except (MemoryError, RuntimeError) as error:
        _warn(error)


def _warn(error: Exception) -> None:
    log.warning("a weight stays as it is stored, by which few texts are slower: %s", error)


class Settler:
    """A thread that works off a queue while no other wants its core, from the first task to the end of the process.

    The end of the process waits for the task that is under way, and for no other.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def put(self, task: Callable[[], object]) -> None:
        """Have the task done after those before it; never, once it has been stopped."""
        with self._lock:
            if self._stopped:
                return
            self._tasks.put(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="tercet-settling", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Drop what waits, and return when the thread has ended."""
        with self._lock:
            self._stopped = True
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            self._tasks.put(None)
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        compute_with(1)
        if sys.platform == "linux":  # elsewhere this would name a process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while (task := self._tasks.get()) is not None:
            task()


SETTLER = Settler()
atexit.register(SETTLER.stop)  # now: what is registered while a process ends is never called
