"""Mapped memory: what is read from a file when it is first touched."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

_SAMPLES = 8  # pages of a tensor that are asked for: files come into memory and leave it in long pieces


def bring_in(tensor: Tensor) -> None:
    """Read a contiguous tensor if it seems to be on disk alone; else whatever touches it first waits for the disk.

    Linux says of a page whether it is in memory; of a file that belongs to somebody else it says so of every page.
    """
    if not _seems_in_memory(tensor):
        stored = tensor.view(-1).view(torch.uint8)
        stored[:: mmap.PAGESIZE].sum()
        stored[-1].item()


def _seems_in_memory(tensor: Tensor) -> bool:
    if sys.platform != "linux":
        return False
    first, last = (at // mmap.PAGESIZE for at in (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes - 1))
    pages = range(first, last + 1, max(1, (last - first) // _SAMPLES))
    return all(_is_in_memory(page * mmap.PAGESIZE) for page in pages)


def _is_in_memory(address: int) -> bool:
    found = ctypes.c_ubyte()
    failed = _mincore()(ctypes.c_void_p(address), ctypes.c_size_t(1), ctypes.byref(found))
    return not failed and bool(found.value & 1)


@cache
def _mincore() -> Any:
    return ctypes.CDLL(None).mincore
