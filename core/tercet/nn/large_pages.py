"""Memory in large pages, where the system has them: a pass over all of a model's weights looks up fewer places then."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch
from torch import Tensor

_LARGE = 2 << 20  # bytes of a large page on Linux's common processors


def empty(nbytes: int) -> Tensor:
    """Return (nbytes,) uint8 from the start of a large page on; nothing is taken of it before it is touched.

    Raises:
        OSError, RuntimeError: there is no room.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return torch.empty(nbytes, dtype=torch.uint8)
    held = mmap.mmap(-1, nbytes + _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # this kernel was built without
        held.madvise(advice)
    memory = torch.frombuffer(held, dtype=torch.uint8)
    start = -memory.data_ptr() % _LARGE
    return memory[start : start + nbytes]
