"""The crew: worker threads that sleep, each on a condition of its own, so that work wakes one of them and not all."""

from __future__ import annotations

import threading


class Crew:
    """Workers by number; the lowest that sleeps is woken first. Every method is called with `lock` held.

    A thread that wakes for nothing takes the interpreter's lock from the one that computes, and on a virtual machine a
    wake is slow (docs/adr/0007-cores-and-row-counts.md).
    """

    def __init__(self, workers: int) -> None:
        self.lock = threading.RLock()
        self._changed = [threading.Condition(self.lock) for _ in range(workers)]
        self._asleep: set[int] = set()

    def sleep(self, worker: int) -> None:
        """Wait, without the lock, until this worker is woken."""
        self._asleep.add(worker)
        self._changed[worker].wait()

    def wake(self) -> None:
        """Wake one worker, if any sleeps; it wakes the next one if it leaves work."""
        if self._asleep:
            worker = min(self._asleep)
            self._asleep.discard(worker)
            self._changed[worker].notify()

    def wake_all(self) -> None:
        """Wake every worker."""
        while self._asleep:
            self.wake()
