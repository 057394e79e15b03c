"""Dense and score heads by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.by_rows import RowWeight
from tercet.nn.heads import Classifier, Dense, DenseHead, Normalize, ScoreHead
from tercet.nn.linear import prepare

WIDTH = 12


def batch_of(*lengths: int) -> PackedBatch:
    return PackedBatch.of([TokenSequence(np.arange(n)) for n in lengths])


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return module.eval()


def states(batch: PackedBatch, seed: int = 1) -> torch.Tensor:
    return torch.randn(sum(batch.lengths), WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("out", [WIDTH, 5], ids=["same width", "another width"])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", [None, "tanh", "gelu", "sigmoid"])
def test_dense_is_activation_of_the_product_plus_the_residual(out: int, residual: bool, activation: str | None) -> None:
    dense = drawn(Dense(WIDTH, out, activation=activation, residual=residual))
    assert isinstance(dense, Dense) and dense.linear.weight is not None and dense.linear.bias is not None
    x = states(batch_of(4))
    product = x @ dense.linear.weight.T + dense.linear.bias
    acts = {None: lambda y: y, "tanh": torch.tanh, "gelu": nn.functional.gelu, "sigmoid": torch.sigmoid}
    expected = acts[activation](product)
    if residual:
        expected = expected + (x if dense.skip is None else x @ dense.skip.weight.T)
    assert torch.allclose(dense(x), expected, atol=1e-5)
    assert (dense.skip is not None) == (residual and out != WIDTH)


def test_steps_follow_pooling_in_order() -> None:
    batch = batch_of(3, 5)
    dense = drawn(Dense(2 * WIDTH, 4, activation="tanh"))
    norm = drawn(nn.LayerNorm(4))
    x = states(batch)
    pooled = torch.stack([torch.cat([part[0], part.mean(0)]) for part in x.split((3, 5))])
    one = DenseHead(("cls", "mean"), [dense, norm, Normalize()])(x, batch)
    assert torch.allclose(one, nn.functional.normalize(norm(dense(pooled)), dim=-1), atol=1e-5)
    other = DenseHead(("cls", "mean"), [dense, Normalize(), norm])(x, batch)
    assert torch.allclose(other, norm(nn.functional.normalize(dense(pooled), dim=-1)), atol=1e-5)


def test_half_precision_states_give_float32_rows() -> None:
    batch = batch_of(3, 1)
    head = DenseHead(("mean",), [drawn(Dense(WIDTH, 4)), Normalize()])
    rows = head.rows(head(states(batch).bfloat16(), batch), batch)
    assert len(rows) == 2 and rows[0].dtype == np.float32 and rows[0].shape == (4,)
    assert np.allclose([np.linalg.norm(row) for row in rows], 1, atol=1e-6)


def test_a_vector_of_nothing_stays_zero() -> None:
    assert torch.equal(Normalize()(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize(("activation", "function"), [(None, lambda x: x), ("sigmoid", torch.sigmoid)])
def test_scores_are_activated_logits(activation: str | None, function: nn.Module) -> None:
    batch = batch_of(3, 5)
    classifier = drawn(Classifier(WIDTH, 2, dense=False))
    assert isinstance(classifier, Classifier)
    x = states(batch)
    assert torch.allclose(ScoreHead(classifier, activation)(x, batch), function(classifier(x, batch)))


@pytest.mark.parametrize(("hidden", "labels"), [(12, 1), (64, 1), (384, 3)])
def test_a_score_is_the_same_among_any_others(hidden: int, labels: int) -> None:
    head = drawn(ScoreHead(Classifier(hidden, labels, activation="tanh"), "sigmoid"))
    prepare(head, only=RowWeight)
    batch, generator = batch_of(*[1] * 80), torch.Generator().manual_seed(2)
    hidden_states = torch.randn(80, hidden, generator=generator)
    with torch.inference_mode():
        whole = head(hidden_states, batch)
        for first, last in ((0, 1), (3, 6), (0, 16), (16, 80), (0, 64), (7, 60)):
            assert torch.equal(head(hidden_states[first:last], batch_of(*[1] * (last - first))), whole[first:last])
