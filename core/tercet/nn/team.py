"""Teams: with how many cores a thread computes."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from tercet.nn.jit.code import Compiled
from tercet.nn.jit.words import Words


def compute_with(cores: int) -> None:
    """Let the calling thread compute with so many cores from now on, and change nothing for any other thread.

    OpenMP keeps a team of helpers for every thread that computes in parallel. Once all teams together outnumber the
    cores, helpers sleep between operations instead of spinning: measured on two cores, a short query then takes 5.5 ms
    instead of 3. So of all the engine's threads only one may ever ask for more than one core.
    """
    if cores == _OWN.cores:
        return
    torch.get_num_threads()  # makes torch settle this thread's own number now, and not over the next line's
    for library in _openmp():
        library.set_num_threads(cores)
    _OWN.cores = cores


Step = tuple[Compiled, Words]


@contextmanager
def noted() -> Iterator[list[Step]]:
    """Have the calling thread note what `together` is called with, and run none of it."""
    _OWN.steps = []
    try:
        yield _OWN.steps
    finally:
        _OWN.steps = None


class _Own(threading.local):
    steps: list[Step] | None = None
    cores: int | None = None  # that `compute_with` was asked for last


_OWN = _Own()


def together(function: Compiled, words: Words) -> None:
    """Run a function with these words on all cores that the calling thread computes with."""
    if _OWN.steps is not None:
        _OWN.steps.append((function, words))
        return
    memory = np.fromiter(words, np.int64)
    cores = min(torch.get_num_threads(), words.units)
    fork = _fork() if cores > 1 else None
    if fork is not None:
        fork(function.address, memory.ctypes.data, cores, 0)
    else:
        function.run(memory.ctypes.data)


@cache
def _fork() -> Any:
    """Return what runs a function on a team, of torch's own library, whose helpers are there already; None without."""
    torch_files = Path(torch.__file__).parent
    libraries = sorted(_openmp(), key=lambda library: torch_files not in Path(library.filepath).parents)
    fork = getattr(libraries[0].dynlib, "GOMP_parallel", None) if libraries else None
    if fork is None:
        return None
    fork.argtypes, fork.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return fork


@cache
def _openmp() -> list[Any]:
    libraries: list[Any] = ThreadpoolController().select(user_api="openmp").lib_controllers
    return libraries
