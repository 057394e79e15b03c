"""Rooms: few sizes, each large enough, none much too large."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.room import Arrays, Room


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 400, 2048, 2049, 5000, 16_000, 16_384])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_a_room_holds_the_batch_and_little_more(tokens: int, count: int) -> None:
    longest = -(-tokens // count)
    room = Room.holding(tokens, count, longest)
    assert room is not None and room.tokens >= tokens and room.longest >= longest
    assert (room.sequences - count) * room.longest >= room.tokens - tokens
    assert room.tokens <= (max(16, 2 * tokens) if tokens <= 2048 else 1.25 * tokens)
    assert room.sequences <= 4 * (count + 3) and room.longest <= max(512, 2 * longest)


def test_there_are_few_rooms_and_none_for_a_long_batch() -> None:
    """A bulk load of short texts is cut into batches that differ in how many texts they hold."""
    assert len({Room.holding(tokens, 1, tokens) for tokens in range(1, 16_385)}) <= 24
    assert len({Room.holding(16_300, 16_300 // length, length) for length in range(8, 513)}) <= 4
    assert Room.holding(16_385, 1, 16_385) is None


def test_what_is_laid_out_is_the_batch_and_filler() -> None:
    room = Room(16, 4, 16)
    cu = np.array([0, 3, 5], np.int32)
    laid = room.laid(Arrays(cu, np.arange(5) + 7, np.array([0, 1, 2, 0, 1])).for_attention([3, 1]))
    assert laid.key_counts is not None and laid.key_counts.dtype == np.int32
    assert laid.key_counts.tolist() == [3, 1, 0, 0]
    assert laid.cu_seqlens.tolist() == [0, 3, 5, 16, 16] and laid.cu_seqlens.dtype == np.int32
    assert laid.input_ids.tolist() == [7, 8, 9, 10, 11] + [0] * 11
    assert laid.positions.tolist() == [0, 1, 2, 0, 1] + [0] * 11
    assert laid.token_types is not None and laid.token_types.tolist() == [0] * 16


def test_filler_is_no_longer_than_the_longest_sequence() -> None:
    cu = np.array([0, 60, 130], np.int32)
    laid = Room(300, 8, 64).laid(Arrays(cu, np.arange(130), np.arange(130)))
    assert laid.cu_seqlens.tolist() == [0, 60, 130, 194, 258, 300, 300, 300, 300]


def test_every_query_is_in_one_block() -> None:
    lengths = [1, 64, 65, 200]
    cu = np.array([0, *np.cumsum(lengths)], np.int32)
    arrays = Arrays(cu, np.arange(330), np.arange(330)).for_attention(lengths)
    assert arrays.query_blocks is not None and arrays.query_blocks.dtype == np.int32
    assert arrays.query_blocks.tolist() == [[0, 0], [1, 0], [2, 0], [2, 64], [3, 0], [3, 64], [3, 128], [3, 192]]
    room = Room.holding(330, 4, 200)
    assert room is not None
    laid = room.laid(arrays)
    assert laid.query_blocks is not None and laid.query_blocks[:8].tolist() == arrays.query_blocks.tolist()
    assert (laid.query_blocks[8:] == -1).all() and len(laid.query_blocks) >= 512 // 64 + 4


def test_a_batch_in_a_room_is_the_batch() -> None:
    sequences = [
        TokenSequence(np.arange(5), token_types=np.array([0, 0, 1, 1, 1])),
        TokenSequence(np.arange(2), pooled_from=1),
    ]
    plain = PackedBatch.of(sequences)
    tensors = (plain.cu_seqlens, plain.input_ids, plain.positions, plain.token_types)
    arrays = Arrays(*(x.numpy() for x in tensors))  # type: ignore[union-attr]
    roomy = PackedBatch._in_a_room(arrays, plain.pool_mask, sequences, torch.device("cpu"))
    for name in (
        "input_ids",
        "positions",
        "token_types",
        "cu_seqlens",
        "pool_mask",
        "sequence_index",
        "lengths_tensor",
    ):
        assert getattr(roomy, name).tolist() == getattr(plain, name).tolist(), name
        assert getattr(roomy, name).dtype == getattr(plain, name).dtype, name
    assert roomy.key_counts is not None and roomy.key_counts.tolist() == [5, 2]
    assert roomy.room == Room(16, 4, 512) and roomy.block is not None
    assert roomy.room.layout.views(roomy.block)[0].tolist() == [0, 5, 7, 16, 16]
