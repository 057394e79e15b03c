"""Transfers between a GPU and the host: through page-locked memory, which the device reads and writes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNED = 16  # bytes


def upload(arrays: Sequence[NDArray[Any]], device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Return one block of bytes on the device and the arrays in it, brought there by one copy that nobody waits for."""
    block = torch.empty(size_bytes(arrays), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for view, array in zip(views(block, arrays), arrays, strict=True):
        np.copyto(view.numpy(), array)
    there = block.to(device, non_blocking=True)
    return there, views(there, arrays)


def size_bytes(arrays: Sequence[NDArray[Any]]) -> int:
    """Return how long a block is that holds the arrays."""
    return sum(map(_extent, arrays))


def views(block: Tensor, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
    """Return the places of a block of bytes where such arrays lie, each in its own type and shape."""
    starts = accumulate(map(_extent, arrays), initial=0)
    return [
        block[start : start + array.nbytes].view(_as_torch(array.dtype)).view(array.shape)
        for start, array in zip(starts, arrays, strict=False)
    ]


def to_host(x: Tensor) -> NDArray[Any]:
    """Return a tensor as an array, waiting for what the calling thread has queued on the device and for nothing else.

    What comes from a GPU lies in page-locked memory: copy what is kept.
    """
    if x.device.type != "cuda":
        return x.numpy()
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return host.numpy()


@cache
def _as_torch(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _extent(array: NDArray[Any]) -> int:
    return -(-array.nbytes // _ALIGNED) * _ALIGNED
