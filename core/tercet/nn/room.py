"""Rooms: the few sizes that small batches are laid out in on a GPU, so that what is made for one serves many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tercet.nn.layout import Layout

QUERY_BLOCK = 64  # queries that a GPU's attention computes at a time
SHORT = 512  # tokens; attention treats sequences up to here alike, whatever the longest of a batch is

MOST_TOKENS = 16_384  # what an engine puts into one pass; a longer one takes the device longer than the host to queue
# Few tokens leave a GPU waiting for weights, and filler costs nothing: up to here a power of two, above it quarters.
_LEAST_TOKENS, _FINE_FROM, _STEPS = 16, 2_048, 4


class Room(NamedTuple):
    """The size of a batch, rounded up; sequences of filler make up for the rest of the tokens.

    Attributes:
        tokens: T. sequences: B, filler included. longest: what no sequence is longer than.
        masked: whether some tokens may not be attended to.
    """

    tokens: int
    sequences: int
    longest: int
    masked: bool = False

    @classmethod
    def holding(cls, tokens: int, sequences: int, longest: int, masked: bool = False) -> Self | None:
        """Return the room for a batch of this size, or None for one that is too large to have any."""
        if tokens > MOST_TOKENS:
            return None
        size, most = _rounded(tokens), max(SHORT, _power(longest))
        filler = -(-(size - tokens) // most)
        return cls(size, _power(sequences + filler, 4), most, masked)

    def laid(self, arrays: Arrays) -> Arrays:
        """Return a batch's arrays as long as the room; what is missing of them is zero, as is all of those left out."""
        missing = np.arange(1, self.sequences + 2 - len(arrays.cu_seqlens)) * self.longest
        filler = np.minimum(arrays.cu_seqlens[-1] + missing, self.tokens)
        cu_seqlens = np.concatenate((arrays.cu_seqlens, filler), dtype=np.int32)
        blocks = np.full((self.tokens // QUERY_BLOCK + self.sequences, 2), -1, np.int32)
        if arrays.query_blocks is not None:
            blocks[: len(arrays.query_blocks)] = arrays.query_blocks
        keys = np.zeros(self.sequences, np.int32)
        if arrays.key_counts is not None:
            keys[: len(arrays.key_counts)] = arrays.key_counts
        ids, positions, types = map(self._padded, (arrays.input_ids, arrays.positions, arrays.token_types))
        return Arrays(cu_seqlens, ids, positions, types, keys, blocks)

    @property
    def empty(self) -> Arrays:
        """The arrays of a room without a sequence in it."""
        none = np.zeros(0, np.int64)
        return self.laid(Arrays(np.zeros(1, np.int32), none, none))

    @property
    def layout(self) -> Layout:
        """Where a batch's arrays lie in one block."""
        return _layout(self)

    def _padded(self, array: NDArray[np.int64] | None) -> NDArray[np.int64]:
        padded = np.zeros(self.tokens, np.int64)
        if array is not None:
            padded[: len(array)] = array
        return padded


class Arrays(NamedTuple):
    """What a backbone reads of a batch, on the host; see `PackedBatch`. On a GPU attention reads the last two.

    Attributes:
        cu_seqlens: (B + 1,) int32. input_ids, positions, token_types: (T,) int64. key_counts: (B,) int32.
        query_blocks: (n, 2) int32, for every `QUERY_BLOCK` tokens of a sequence or what is left of it, which sequence
            it is and the first token's place in it; −1 for no block.
    """

    cu_seqlens: NDArray[np.int32]
    input_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    token_types: NDArray[np.int64] | None = None
    key_counts: NDArray[np.int32] | None = None
    query_blocks: NDArray[np.int32] | None = None

    @property
    def present(self) -> list[NDArray[Any]]:
        """Those that are there."""
        return [array for array in self if array is not None]

    def for_attention(self, key_counts: Sequence[int]) -> Arrays:
        """Return the arrays with `query_blocks`, and so many keys of each sequence."""
        counts = -(-np.diff(self.cu_seqlens) // QUERY_BLOCK)
        sequence = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
        blocks = np.stack((sequence, place * QUERY_BLOCK), 1).astype(np.int32)
        return self._replace(key_counts=np.array(key_counts, np.int32), query_blocks=blocks)


@cache
def _layout(room: Room) -> Layout:
    return Layout.of(room.empty.present)


def _rounded(tokens: int) -> int:
    if tokens <= _FINE_FROM:
        return max(_LEAST_TOKENS, _power(tokens))
    step = _power(tokens) // 2 // _STEPS
    return -(-tokens // step) * step


def _power(number: int, base: int = 2) -> int:
    """Return the power of the base that is not less."""
    power = base
    while power < number:
        power *= base
    return power
