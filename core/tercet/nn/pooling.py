"""Pooling: (T, H) token states to one vector per sequence, in float32.

Each sequence is reduced by itself, so the same text gives the same vector in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tercet.nn import compiled_rows
from tercet.nn.batch import PackedBatch


def reduced(x: Tensor, offsets: Tensor, how: Literal["sum", "max"]) -> Tensor:
    """Return (B, …) in the type of x: on a GPU, the sum or maximum of the rows from each offset (B + 1,) to the next.

    Sums are made in float64: the operator adds one row after the other, which in float32 is off by more than 2e-6.
    """
    summed = x.double() if how == "sum" else x
    reduced = torch.segment_reduce(
        summed, how, offsets=offsets.long(), axis=0, unsafe=True
    )  # safe waits for the device
    return reduced.to(x.dtype)


def _reduce(x: Tensor, batch: PackedBatch, how: Literal["sum", "max"]) -> Tensor:
    """Return (B, …): the sum or maximum over the tokens of each sequence."""
    if x.device.type != "cpu":
        return reduced(x, batch.cu_seqlens, how)
    # Measured: 9 to 20 times the rate of segment_reduce on a CPU.
    blocks = [x[run.start : run.stop].view(run.count, run.length, -1) for run in batch.runs]
    return torch.cat([block.sum(1) if how == "sum" else block.amax(1) for block in blocks])


def _totals(hidden: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Return (B, H) sums over the tokens that count, and (B, 1) how many those are."""
    if batch.pool_mask is None:
        return _reduce(hidden.float(), batch, "sum"), batch.lengths_tensor[:, None].float()
    return _weighted(hidden, batch, batch.pool_mask[:, None].float())


def _weighted(hidden: Tensor, batch: PackedBatch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, H) weighted sums and (B, 1) sums of the weights (T, 1)."""
    return _reduce(hidden.float() * weights, batch, "sum"), _reduce(weights, batch, "sum")


def mean(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Return Σ m h / max(Σ m, 1e-9), (B, H)."""
    total, count = _totals(hidden, batch)
    return total / count.clamp(min=1e-9)


def mean_sqrt_len(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Return Σ m h / √max(Σ m, 1e-9), (B, H)."""
    total, count = _totals(hidden, batch)
    return total / count.clamp(min=1e-9).sqrt()


def weighted_mean(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Return the mean with weights 1, 2, …, L over each sequence's tokens, (B, H); arXiv:2202.08904."""
    ordinal = torch.arange(1, len(hidden) + 1, device=hidden.device) - batch.cu_seqlens[batch.sequence_index]
    weights = ordinal if batch.pool_mask is None else ordinal * batch.pool_mask
    total, weight = _weighted(hidden, batch, weights[:, None].float())
    return total / weight.clamp(min=1e-9)


def maximum(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Return the maximum over the tokens that count, (B, H)."""
    if batch.pool_mask is not None:
        hidden = hidden.masked_fill(~batch.pool_mask[:, None], float("-inf"))
    return _reduce(hidden, batch, "max")


def cls(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Return the first token's state, or the first one after a prompt that is left out, (B, H)."""
    return hidden[batch.first_pooled]


def last_token(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Return the last token's state, (B, H)."""
    return hidden[batch.cu_seqlens[1:].long() - 1]


POOLINGS: dict[str, Callable[[Tensor, PackedBatch], Tensor]] = {
    "cls": cls,
    "max": maximum,
    "mean": mean,
    "mean_sqrt_len": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last_token,
}
_COMPILED = {"cls", "mean", "mean_sqrt_len"}  # those that `compiled_rows` has too


def _pooled(hidden: Tensor, batch: PackedBatch, name: str) -> Tensor:
    if name in _COMPILED and hidden.device.type == "cpu":
        states = hidden if name == "cls" else hidden.float()
        if compiled_rows.fuses(states):
            return compiled_rows.pooled(states, batch.pooled_spans, name)
    return POOLINGS[name](hidden, batch)


def pool(hidden: Tensor, batch: PackedBatch, poolings: tuple[str, ...]) -> Tensor:
    """Return (B, H · len(poolings)) float32: the named poolings side by side, computed in float32."""
    pooled = [_pooled(hidden, batch, name).float() for name in poolings]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, -1)
