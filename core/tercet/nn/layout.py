"""Layouts: where tensors lie in one block of bytes, so that one copy brings them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNED = 256  # bytes; what a device's own allocations are aligned to


class Layout:
    """Places for tensors, one after another, each contiguous and from an aligned byte on.

    Args:
        kinds: shape and type of each.

    Attributes:
        size_bytes: of the whole block.
    """

    def __init__(self, kinds: Iterable[tuple[Sequence[int], torch.dtype]]) -> None:
        like = [torch.empty(tuple(shape), dtype=dtype, device="meta") for shape, dtype in kinds]
        extents = (-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in like)
        *self._starts, self.size_bytes = accumulate(extents, initial=0)
        self._places = [
            (tensor.dtype, tensor.shape, tensor.stride(), start // tensor.itemsize)
            for tensor, start in zip(like, self._starts, strict=True)
        ]

    @classmethod
    def of(cls, arrays: Iterable[NDArray[Any]]) -> Layout:
        """Return the places for such arrays."""
        return cls((array.shape, _as_torch(array.dtype)) for array in arrays)

    def views(self, block: Tensor) -> list[Tensor]:
        """Return the tensors that lie in a block of bytes; one operation each, since a model has hundreds."""
        typed = {dtype: block.view(dtype) for dtype in {dtype for dtype, *_ in self._places}}
        return [typed[dtype].as_strided(shape, stride, at) for dtype, shape, stride, at in self._places]

    def write(self, arrays: Iterable[NDArray[Any]], block: NDArray[np.uint8]) -> None:
        """Put arrays into their places in a block on the host."""
        for start, array in zip(self._starts, arrays, strict=True):
            block[start : start + array.nbytes].view(array.dtype)[:] = array.reshape(-1)


@cache
def _as_torch(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
