"""Lexical heads by their definitions: log(1 + relu) over tokens, and one weight per token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.heads import MaskedLM
from tercet.nn.sparse import SATURATIONS, LexicalHead, SpladeHead, _chunks

WIDTH, VOCAB = 8, 50
LENGTHS = (3, 700, 1, 256, 255, 40)


class Recorder(MaskedLM):
    """A language-model head that records how many tokens it decodes at a time."""

    def __init__(self) -> None:
        super().__init__(WIDTH, VOCAB, nn.LayerNorm(WIDTH), "gelu")
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(torch.randn(parameter.shape, generator=generator))
        self.decoded: list[int] = []

    def decode(self, transformed: Tensor) -> Tensor:
        self.decoded.append(len(transformed))
        return super().decode(transformed)


def batch_of(*lengths: int, seed: int = 2) -> tuple[PackedBatch, Tensor]:
    rng = np.random.default_rng(seed)
    batch = PackedBatch.of([TokenSequence(rng.integers(0, VOCAB, n)) for n in lengths])
    return batch, torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(seed))


def saturated(logits: Tensor, activation: str) -> Tensor:
    once = torch.log(1 + logits.clamp(min=0))
    return once if activation == "log1p_relu" else torch.log(1 + once)


@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu"])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_splade_is_its_formula(pooling: str, activation: str) -> None:
    batch, hidden = batch_of(*LENGTHS)
    masked_lm = Recorder()
    parts = masked_lm(hidden).split(LENGTHS)
    expected = [
        saturated(p, activation).amax(0) if pooling == "max" else saturated(p, activation).sum(0) for p in parts
    ]
    masked_lm.decoded.clear()
    ours = SpladeHead(masked_lm, pooling, activation)(hidden, batch)
    assert torch.allclose(ours, torch.stack(expected), atol=1e-4, rtol=1e-5)
    assert sum(masked_lm.decoded) == sum(LENGTHS)
    assert max(masked_lm.decoded) <= 256  # never the logits of the whole batch


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_a_text_alone_equals_itself_in_a_batch(pooling: str) -> None:
    batch, hidden = batch_of(*LENGTHS)
    head = SpladeHead(Recorder(), pooling, "log1p_relu")
    together = head(hidden, batch)
    for row, part, sequence in zip(together, hidden.split(LENGTHS), batch.sequences, strict=True):
        alone = head(part, PackedBatch.of([sequence]))[0]
        assert (row - alone).abs().max() <= 1e-6 * max(1, alone.max())


@pytest.mark.parametrize("size", [64, 4096])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_all_sequences_of_a_chunk_may_be_added_at_once(pooling: str, size: int) -> None:
    """As on a GPU; a chunk may begin and end within a text."""
    batch, hidden = batch_of(*LENGTHS)
    head = SpladeHead(Recorder(), pooling, "log1p_relu")
    start = float("-inf") if pooling == "max" else 0.0
    one_by_one, at_once = torch.full((2, len(LENGTHS), VOCAB), start)
    for chunk in _chunks(batch.lengths, size):
        logits = head.masked_lm.decode(head.masked_lm.transform(hidden)[chunk.start : chunk.stop])
        head._add(one_by_one, logits, chunk, batch)
        given = logits if pooling == "max" else SATURATIONS["log1p_relu"](logits)
        head._add_at_once(at_once, given, chunk, batch)
    assert torch.allclose(at_once, one_by_one, rtol=1e-6, atol=1e-6) and one_by_one.isfinite().all()


def test_rows_hold_what_is_not_zero_in_order() -> None:
    batch, _ = batch_of(1, 1, 1, 1)
    output = torch.zeros(4, VOCAB)
    output[1, [7, 3]] = torch.tensor([0.5, 2.0])
    output[3, [0, 49]] = torch.tensor([1.0, 1e-30])
    rows = SpladeHead(Recorder(), "max", "log1p_relu").rows(output, batch)
    assert [row.indices.tolist() for row in rows] == [[], [3, 7], [], [0, 49]]
    assert rows[1].values.tolist() == [2.0, 0.5]
    assert all(row.indices.dtype == np.uint32 and row.values.dtype == np.float32 for row in rows)


def test_rows_of_nothing_are_empty() -> None:
    batch, _ = batch_of(1, 1)
    rows = SpladeHead(Recorder(), "max", "log1p_relu").rows(torch.zeros(2, VOCAB), batch)
    assert [len(row) for row in rows] == [0, 0]


def test_lexical_weights_are_the_largest_of_each_token() -> None:
    head = LexicalHead(WIDTH, dropped=[0, 2])
    generator = torch.Generator().manual_seed(4)
    for parameter in head.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    sequences = [TokenSequence(np.array(ids)) for ids in ([0, 9, 5, 9, 9, 2], [0, 2], [0, 7, 1, 2])]
    batch = PackedBatch.of(sequences)
    hidden = torch.randn(12, WIDTH, generator=generator)
    assert head.linear.weight is not None and head.linear.bias is not None
    weights = (hidden @ head.linear.weight.T + head.linear.bias)[:, 0].split(batch.lengths)
    for sequence, row, raw in zip(sequences, head.rows(head(hidden, batch), batch), weights, strict=True):
        largest: dict[int, float] = {}
        for token, weight in zip(sequence.input_ids.tolist(), raw.tolist(), strict=True):
            if token not in (0, 2) and weight > 0:
                largest[token] = max(largest.get(token, 0), weight)
        assert row.indices.tolist() == sorted(largest)
        assert np.allclose(row.values, [largest[token] for token in sorted(largest)], atol=1e-6)
