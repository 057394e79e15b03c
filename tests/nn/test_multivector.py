"""The multivector head keeps the tokens it should, in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.heads import Dense, Normalize
from tercet.nn.multivector import MultiVectorHead

KEPT = np.array([True, False, True, True])


@pytest.mark.parametrize("drop_first", [True, False])
def test_kept_tokens_and_the_first(drop_first: bool) -> None:
    sequences = [TokenSequence(np.arange(4), kept=KEPT), TokenSequence(np.arange(3)), TokenSequence(np.arange(1))]
    batch = PackedBatch.of(sequences)
    hidden = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    head = MultiVectorHead([Normalize()], drop_first=drop_first)
    rows = head.rows(head(hidden, batch), batch)
    vectors = torch.nn.functional.normalize(hidden, dim=-1).numpy()
    tokens = [[2, 3], [5, 6], []] if drop_first else [[0, 2, 3], [4, 5, 6], [7]]
    for row, expected in zip(rows, tokens, strict=True):
        assert row.shape == (len(expected), 6) and row.dtype == np.float32
        assert np.allclose(row, vectors[expected])


def test_projections_run_in_float32_whatever_the_states() -> None:
    batch = PackedBatch.of([TokenSequence(np.arange(5))])
    dense = Dense(6, 3, bias=False)
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    dense.linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    hidden = torch.randn(5, 6, generator=torch.Generator().manual_seed(2)).bfloat16()
    ours = MultiVectorHead([dense, Normalize()])(hidden, batch)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, torch.nn.functional.normalize(hidden.float() @ weight.T, dim=-1), atol=1e-6)
