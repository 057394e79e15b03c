"""Threads: how deep their stacks are, and jobs on some that, unlike `concurrent.futures`', let a process end."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_DEEP, _DEEP_ENOUGH = 8 << 20, 2 << 20  # bytes of a stack: of ours, and what kernels, which take 1.5 MB, go well with
_STARTING = threading.Lock()
_OWN = threading.local()


def start_deep(thread: threading.Thread) -> None:
    """Start a thread with a stack that is deep enough for compiled kernels, whatever the program's other threads have.

    A thread that others start at the same moment may get as deep a one.
    """
    with _STARTING:
        before = threading.stack_size(_DEEP)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


def is_deep() -> bool:
    """Whether the calling thread's stack is deep enough for compiled kernels, or the system does not say."""
    known: bool | None = getattr(_OWN, "is_deep", None)
    if known is None:
        size = _stack_bytes()
        known = _OWN.is_deep = size is None or size >= _DEEP_ENOUGH
    return known


def _stack_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    system, attributes, size = ctypes.CDLL(None), ctypes.create_string_buffer(64), ctypes.c_size_t()
    system.pthread_self.restype = ctypes.c_ulong
    if system.pthread_getattr_np(ctypes.c_ulong(system.pthread_self()), attributes):
        return None
    system.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    system.pthread_attr_destroy(attributes)
    return size.value


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
