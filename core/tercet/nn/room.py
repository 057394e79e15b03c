"""Rooms: the few sizes that small batches are laid out in on a GPU, so that what is made for one serves many."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

_MOST_TOKENS = 16_384  # what an engine puts into one pass; a longer one takes the device longer than the host to queue
_LEAST_TOKENS, _LEAST_SEQUENCES, _LEAST_LONGEST = 16, 2, 64
# Few tokens leave a GPU waiting for weights, and filler costs nothing: up to here a power of two, above it quarters.
_FINE_FROM, _STEPS = 2_048, 4


class Room(NamedTuple):
    """The size of a batch, rounded up; sequences of filler make up for the rest of the tokens.

    Attributes:
        tokens: T. sequences: B, filler included. longest: what no sequence is longer than.
    """

    tokens: int
    sequences: int
    longest: int

    @classmethod
    def holding(cls, tokens: int, sequences: int, longest: int) -> Self | None:
        """Return the room for a batch of this size, or None for one that is too large to have any."""
        if tokens > _MOST_TOKENS:
            return None
        size, most = _rounded(tokens), _power(max(_LEAST_LONGEST, longest))
        filler = -(-(size - tokens) // most)
        return cls(size, _power(max(_LEAST_SEQUENCES, sequences + filler)), min(size, most))

    def laid(self, arrays: Arrays) -> Arrays:
        """Return a batch's arrays as long as the room; what is missing of them is zero, as is all of those left out."""
        missing = np.arange(1, self.sequences + 2 - len(arrays.cu_seqlens)) * self.longest
        filler = np.minimum(arrays.cu_seqlens[-1] + missing, self.tokens)
        cu_seqlens = np.concatenate((arrays.cu_seqlens, filler), dtype=np.int32)
        return Arrays(cu_seqlens, *(self._padded(array) for array in arrays[1:]))

    def _padded(self, array: NDArray[np.int64] | None) -> NDArray[np.int64]:
        padded = np.zeros(self.tokens, np.int64)
        if array is not None:
            padded[: len(array)] = array
        return padded


class Arrays(NamedTuple):
    """What a backbone reads of a batch, on the host: (B + 1,) int32, then (T,) int64 each; see `PackedBatch`."""

    cu_seqlens: NDArray[np.int32]
    input_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    token_types: NDArray[np.int64] | None = None


def _rounded(tokens: int) -> int:
    if tokens <= _FINE_FROM:
        return max(_LEAST_TOKENS, _power(tokens))
    step = _power(tokens) // 2 // _STEPS
    return -(-tokens // step) * step


def _power(number: int) -> int:
    """Return the power of two that is not less."""
    return 1 << (number - 1).bit_length()
