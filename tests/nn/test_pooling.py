"""Each pooling against its definition, one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.pooling import POOLINGS, pool

LENGTHS = (1, 5, 5, 2, 64, 300, 5)
PROMPTS = (0, 2, 4, 1, 0, 17, 3)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else ["cpu"]


def weighted(states: Tensor, first: int) -> Tensor:
    ordinals = torch.arange(first + 1, len(states) + 1).double()[:, None]
    return (states[first:] * ordinals).sum(0) / ordinals.sum()


# (one sequence's (L, H) float64 states, first token that counts) → (H,)
DEFINITIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda states, first: states[first],
    "max": lambda states, first: states[first:].max(0).values,
    "mean": lambda states, first: states[first:].sum(0) / (len(states) - first),
    "mean_sqrt_len": lambda states, first: states[first:].sum(0) / (len(states) - first) ** 0.5,
    "weightedmean": weighted,
    "lasttoken": lambda states, first: states[-1],
}


def draw(prompts: tuple[int, ...], device: str = "cpu") -> tuple[PackedBatch, Tensor]:
    sequences = [
        TokenSequence(np.zeros(n, np.int64), pooled_from=first) for n, first in zip(LENGTHS, prompts, strict=True)
    ]
    hidden = torch.randn(sum(LENGTHS), 48, generator=torch.Generator().manual_seed(5)) - 0.5
    return PackedBatch.of(sequences, device), hidden.to(device)


def test_every_pooling_has_a_definition_here() -> None:
    assert DEFINITIONS.keys() == POOLINGS.keys()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("prompts", [(0,) * len(LENGTHS), PROMPTS])
def test_equals_its_definition(name: str, prompts: tuple[int, ...], device: str) -> None:
    batch, hidden = draw(prompts, device)
    ours = pool(hidden, batch, (name,))
    expected = torch.stack(
        [
            DEFINITIONS[name](states, first)
            for states, first in zip(hidden.cpu().double().split(LENGTHS), prompts, strict=True)
        ]
    )
    assert ours.shape == (len(LENGTHS), 48) and ours.dtype == torch.float32
    assert (ours.cpu().double() - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_sequence_alone_equals_itself_in_a_batch(name: str) -> None:
    batch, hidden = draw(PROMPTS)
    together = pool(hidden, batch, (name,))
    for i, states in enumerate(hidden.split(LENGTHS)):
        alone = pool(states, PackedBatch.of([batch.sequences[i]]), (name,))
        assert (together[i] - alone[0]).abs().max() <= 1e-6


def test_poolings_stand_side_by_side_in_the_given_order() -> None:
    batch, hidden = draw(PROMPTS)
    both = pool(hidden, batch, ("max", "mean"))
    assert torch.equal(both[:, :48], pool(hidden, batch, ("max",)))
    assert torch.equal(both[:, 48:], pool(hidden, batch, ("mean",)))


def test_half_precision_is_summed_in_float32() -> None:
    batch, hidden = draw(PROMPTS)
    half = hidden.bfloat16()
    assert torch.equal(pool(half, batch, ("mean",)), pool(half.float(), batch, ("mean",)))


def test_a_text_that_is_all_prompt_has_a_zero_mean() -> None:
    batch = PackedBatch.of([TokenSequence(np.zeros(3, np.int64), pooled_from=3)])
    assert torch.equal(pool(torch.ones(3, 4), batch, ("mean",)), torch.zeros(1, 4))
