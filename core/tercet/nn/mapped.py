"""Mapped memory: what is read from a file when it is first touched."""

from __future__ import annotations

import ctypes
import mmap
import sys

import torch
from torch import Tensor

_POPULATE_READ = 22  # madvise's, of Linux 5.14 and later; Python has no name for it


def bring_in(tensor: Tensor) -> None:
    """Read what of a contiguous tensor is not in memory yet; else whatever touches it first waits for the disk."""
    start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    if not _populated(start, tensor.data_ptr() + tensor.nbytes - start):
        stored = tensor.view(-1).view(torch.uint8)
        stored[:: mmap.PAGESIZE].sum()
        stored[-1].item()


def _populated(address: int, size: int) -> bool:
    """Whether the system could bring all pages in by itself, which is quicker than touching them."""
    if sys.platform != "linux":
        return False
    advise = ctypes.CDLL(None).madvise
    return bool(advise(ctypes.c_void_p(address), ctypes.c_size_t(size), _POPULATE_READ) == 0)
