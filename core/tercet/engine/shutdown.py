"""`Shutdown`: the end of an engine's threads."""

from __future__ import annotations

import threading
from concurrent.futures import Executor

from tercet.engine.dispatcher import Dispatcher
from tercet.engine.residency import Residency


class Shutdown:
    """Stops the threads, once; whoever asks again returns when that is done: no process may end under its workers."""

    def __init__(self, dispatcher: Dispatcher, residency: Residency, pool: Executor) -> None:
        self._dispatcher, self._residency, self._pool = dispatcher, residency, pool
        self._lock = threading.Lock()
        self._done = False

    def __call__(self, drain_s: float = 0.0) -> None:
        """Refuse new calls, let running ones finish for up to `drain_s` seconds, then free everything."""
        if self._dispatcher.elsewhere:  # locks are as they were when this process was forked
            return
        with self._lock:
            if not self._done:
                self._dispatcher.close(drain_s)
                self._residency.close()
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._done = True
