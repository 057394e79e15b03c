"""Packing sequences end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tercet.nn.batch import PackedBatch, Run, TokenSequence


def draw(lengths: list[int], seed: int = 0, **options: object) -> list[TokenSequence]:
    rng = np.random.default_rng(seed)
    return [TokenSequence(rng.integers(0, 100, n), **options) for n in lengths]  # type: ignore[arg-type]


def test_tokens_lie_end_to_end() -> None:
    sequences = draw([3, 1, 4])
    batch = PackedBatch.of(sequences)
    assert batch.input_ids.tolist() == np.concatenate([s.input_ids for s in sequences]).tolist()
    assert batch.positions.tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 8] and batch.cu_seqlens.dtype == torch.int32
    assert batch.sequence_index.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert batch.lengths == (3, 1, 4) and batch.max_seqlen == 4
    assert batch.lengths_tensor.tolist() == [3, 1, 4] and batch.lengths_tensor.dtype == torch.int64
    assert batch.token_types is None and batch.pool_mask is None and batch.attended is None


def test_absent_token_types_are_zero_beside_given_ones() -> None:
    given = TokenSequence(np.array([5, 6, 7]), token_types=np.array([0, 1, 1]))
    batch = PackedBatch.of([TokenSequence(np.array([1, 2])), given])
    assert batch.token_types is not None and batch.token_types.tolist() == [0, 0, 0, 1, 1]


def test_pooling_skips_a_prompt() -> None:
    sequences = [TokenSequence(np.arange(4), pooled_from=2), TokenSequence(np.arange(2))]
    batch = PackedBatch.of(sequences)
    assert batch.pool_mask is not None and batch.pool_mask.tolist() == [False, False, True, True, True, True]
    assert batch.first_pooled.tolist() == [2, 4]


def test_a_text_that_is_all_prompt_keeps_its_own_first_token() -> None:
    batch = PackedBatch.of([TokenSequence(np.arange(3), pooled_from=3), TokenSequence(np.arange(2), pooled_from=1)])
    assert batch.first_pooled.tolist() == [0, 4]


def test_attended_prefixes() -> None:
    a, b, c = (TokenSequence(np.arange(n), attended=keys) for n, keys in ((4, 2), (3, None), (2, 1)))
    batch = PackedBatch.of([a, b, c])
    assert batch.attended == (2, 3, 1)
    index, cu_attended = batch.attended_index
    assert index.tolist() == [0, 1, 4, 5, 6, 7]
    assert cu_attended.tolist() == [0, 2, 5, 6] and cu_attended.dtype == torch.int32


def test_runs_join_neighbours_of_equal_shape() -> None:
    sequences = [*draw([2, 2, 5]), *draw([5], attended=3), *draw([5], attended=3), *draw([2], attended=2)]
    runs = PackedBatch.of(sequences).runs
    assert runs == (Run(0, 2, 2, 2), Run(4, 1, 5, 5), Run(9, 2, 5, 3), Run(19, 1, 2, 2))
    assert [run.stop for run in runs] == [4, 9, 19, 21]


def test_extents_say_where_each_sequence_lies() -> None:
    batch = PackedBatch.of([*draw([2, 5]), *draw([5], attended=3)])
    assert batch.extents.tolist() == [[0, 2, 2], [2, 5, 5], [7, 5, 3]]


def test_pooled_spans_leave_prompts_out() -> None:
    plain = PackedBatch.of(draw([2, 5]))
    assert plain.pooled_spans.tolist() == plain.extents.tolist()
    sequences = [*draw([4]), *draw([4], pooled_from=3), *draw([4], pooled_from=4)]
    assert PackedBatch.of(sequences).pooled_spans[:, :2].tolist() == [[0, 4], [7, 1], [8, 0]]


def test_lookups_say_which_rows_of_tables_are_asked_for() -> None:
    plain = PackedBatch.of([TokenSequence(np.array([3, 9])), TokenSequence(np.array([4, 5, 6]))])
    asked = plain.lookups
    assert (asked.tokens, asked.ids, asked.positions) == (5, plain.input_ids.data_ptr(), plain.positions.data_ptr())
    assert (asked.largest_id, asked.largest_position, asked.largest_kind, asked.kinds_step) == (9, 2, 0, 0)
    typed = PackedBatch.of([TokenSequence(np.array([3, 9]), token_types=np.array([0, 1]))])
    assert typed.token_types is not None and typed.lookups.kinds == typed.token_types.data_ptr()
    assert (typed.lookups.largest_kind, typed.lookups.kinds_step) == (1, 1)


@pytest.mark.parametrize("sequences", [[], draw([3, 0])])
def test_no_tokens_make_no_batch(sequences: list[TokenSequence]) -> None:
    with pytest.raises(AssertionError, match="at least one token"):
        PackedBatch.of(sequences)


@pytest.mark.parametrize("tokens", [10, 11, 13, 29])
def test_filler_comes_behind_and_is_never_longer_than_the_longest(tokens: int) -> None:
    batch = PackedBatch.of(draw([2, 3, 5]))
    filled = batch.filled(tokens)
    assert len(filled.input_ids) == tokens and filled.lengths[:3] == (2, 3, 5)
    assert filled.max_seqlen == 5 and filled.cu_seqlens[-1] == tokens
    assert torch.equal(filled.input_ids[:10], batch.input_ids)
    assert filled is batch or tokens > 10
    assert filled.runs[-1].stop == tokens
    assert filled.real_runs == batch.runs and filled.extents.tolist() == batch.extents.tolist()
