"""Transfers between a GPU and the host: through page-locked memory, which the device reads and writes by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.nn.layout import Layout

_LEAST_BYTES = 1 << 20


def upload(arrays: Iterable[NDArray[Any]], layout: Layout, device: torch.device) -> Tensor:
    """Return a block of bytes on the device with the arrays in their places, by one copy that nobody waits for."""
    if device.type != "cuda":
        block = torch.empty(layout.size_bytes, dtype=torch.uint8)
        layout.write(arrays, block.numpy())
        return block
    return _STAGES.up(device).upload(arrays, layout)


def to_host(x: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; waits for what the calling thread has queued on the device, and for nothing else."""
    if x.device.type != "cuda":
        return x.numpy()
    return _STAGES.down(x.device).download(x)


class _Stage:
    """Page-locked memory of one thread for one direction; it grows as needed and is used again and again.

    torch's own would be freed by whoever drops a result last. If that happens while the thread that made it records a
    pass (`nn/recordings.py`), the allocator's event becomes part of the recording; a process with many callers ended,
    most likely by that (docs/adr/0013-on-a-gpu.md).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None

    def upload(self, arrays: Iterable[NDArray[Any]], layout: Layout) -> Tensor:
        if self._copied is not None:
            self._copied.synchronize()  # what went up last is still read from here until then
        memory = self._of_size(layout.size_bytes)
        layout.write(arrays, memory.numpy())
        there = memory.to(self._device, non_blocking=True)
        self._copied = torch.cuda.current_stream(self._device).record_event(self._copied)
        return there

    def download(self, x: Tensor) -> NDArray[Any]:
        here = self._of_size(x.nbytes).view(x.dtype).view(x.shape)
        here.copy_(x, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return here.numpy().copy()

    def _of_size(self, size_bytes: int) -> Tensor:
        if len(self._memory) < size_bytes:
            size = max(_LEAST_BYTES, 1 << (size_bytes - 1).bit_length())
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._memory[:size_bytes]


class _Stages(threading.local):
    """A thread's stages, by device: two each, since what goes up may be on its way while something comes back."""

    def __init__(self) -> None:
        self.up, self.down = cache(_Stage), cache(_Stage)


_STAGES = _Stages()
