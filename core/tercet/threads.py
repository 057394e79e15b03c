"""Jobs on threads that never keep a process from ending; those of `concurrent.futures` do, while one of them waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def side_by_side(jobs: Sequence[Callable[[], T]], limit: int) -> Iterator[tuple[int, T]]:
    """Yield each job's place and its result as they end, up to `limit` of them running at once.

    The first error is raised here. After it, or once the caller stops early, jobs that have not begun never do, and
    those that run are left to themselves.
    """
    waiting, lock, gone = enumerate(jobs), threading.Lock(), threading.Event()
    ended: SimpleQueue[tuple[int, T | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while not gone.is_set():
            with lock:
                place, job = next(waiting, (-1, None))
            if job is None:
                return
            try:
                ended.put((place, job(), None))
            except BaseException as error:
                gone.set()
                ended.put((place, None, error))

    for _ in range(min(limit, len(jobs))):
        threading.Thread(target=work, name="tercet-side-by-side", daemon=True).start()
    try:
        for _ in jobs:
            place, result, error = ended.get()
            if error is not None:
                raise error
            yield place, result  # type: ignore[misc]  # None only where T allows it
    finally:
        gone.set()
