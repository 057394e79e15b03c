"""The yes-or-no head is softmax over two logits of the last token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.yes_no import YesNoHead

LENGTHS = (2, 5, 1)


@pytest.mark.parametrize("answers", [2, 1])
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_it_reads_the_last_token(answers: int, activation: str | None) -> None:
    generator = torch.Generator().manual_seed(0)
    head = YesNoHead(4, answers, activation)
    weight = torch.randn(answers, 4, generator=generator)
    head.answers.weight = torch.nn.Parameter(weight, requires_grad=False)
    hidden = torch.randn(sum(LENGTHS), 4, generator=generator)
    batch = PackedBatch.of([TokenSequence(np.arange(n)) for n in LENGTHS])
    scores = head(hidden, batch)
    for score, states in zip(scores, hidden.split(LENGTHS), strict=True):
        logits = weight @ states[-1]
        no = logits[1] if answers == 2 else torch.tensor(0.0)
        expected = torch.softmax(torch.stack([logits[0], no]), 0)[0] if activation else logits[0] - no
        assert torch.allclose(score, expected, atol=1e-6)
