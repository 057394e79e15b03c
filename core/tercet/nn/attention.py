"""Attention over packed batches: the only place that names attention kernels.

On CUDA in half precision one varlen kernel reads the whole batch; on a CPU one of our own does, biases by distance
included. Where neither does, and for any other bias, a loop over runs of equal sequences computes dense blocks:
measured on CPU at 16 sequences of 1,456 tokens this takes 3 ms a layer, padding 12.6 and a block-diagonal mask 22
(docs/adr/0002-attention-by-runs.md, docs/adr/0010-compiled-kernels.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.nn.batch import PackedBatch, Run
from tercet.nn.distance_bias import DistanceBias
from tercet.nn.fused_attention import fused_attention, fuses
from tercet.nn.varlen import Window, varlen_kernel

# (run, its queries (n, N, L, d), its keys (n, N, S, d)) → scores to add, broadcastable to (n, N, L, S); already scaled.
Bias = Callable[[Run, Tensor, Tensor], Tensor]

_QUERY_BLOCK = 128  # queries a block when the window is narrow: the waste at its rim stays under one block
_BIASED_SCORES = 1 << 22  # scores that are computed at once when a bias is added: 16 MB in float32


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    batch: PackedBatch,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: Window = (-1, -1),
    bias: Bias | None = None,
    coarse: bool = False,
) -> Tensor:
    """Return softmax(scale · q kᵀ + bias) v within each sequence.

    Args:
        q: (T, N, d).
        k: (T, K, d), where K divides N (grouped queries).
        v: (T, K, d).
        batch: shapes of the T packed tokens; keys past a sequence's `attended` are masked out.
        scale: default 1/√d.
        causal: whether a token sees only itself and the tokens before it.
        window: tokens to the left and right that are seen; (-1, -1) sees all.
        bias: added to the scaled scores.
        coarse: whether q, k and v are worth no more than bfloat16 holds of them, and may be multiplied as that.

    Returns:
        (T, N · d).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if causal:
        window = (window[0], 0)
    kernel = varlen_kernel(q.device, q.dtype, q.shape[-1])
    # Kernels align the window of a shorter row of keys with its end, so a window over fewer keys goes run by run.
    if kernel is not None and bias is None and (batch.attended is None or window == (-1, -1)):
        return kernel.attend(q, k, v, batch, scale, window).flatten(1)
    if (bias is None or isinstance(bias, DistanceBias)) and fuses(q.device, q.dtype, q.shape[-1]):
        return fused_attention(q, k, v, batch, scale, window, bias, coarse)
    out = torch.empty_like(q)
    if batch.filler:
        out[batch.real_runs[-1].stop :] = 0  # nobody reads it, but what lies there may be slow to compute with
    for run in batch.real_runs:
        for part in _portions(run, q.shape[1]) if bias is not None else (run,):
            _attend_run(q, k, v, out, part, scale, window, bias)
    return out.flatten(1)


def _portions(run: Run, heads: int) -> Iterator[Run]:
    """Yield the run in pieces whose scores stay small enough to hold, as a bias makes necessary."""
    step = max(1, _BIASED_SCORES // (heads * run.length * run.length))
    for first in range(0, run.count, step):
        yield replace(run, start=run.start + first * run.length, count=min(step, run.count - first))


def _attend_run(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, run: Run, scale: float, window: Window, bias: Bias | None
) -> None:
    qs, ks, vs = (_block(x, run) for x in (q, k, v))
    ks, vs = (_for_each_head(x[:, :, : run.attended], q.shape[1]) for x in (ks, vs))
    target = _block(out, run)
    if bias is None and window == (-1, 0) and run.attended == run.length:
        target[:] = F.scaled_dot_product_attention(qs, ks, vs, is_causal=True, scale=scale)
        return
    added = bias(run, qs, ks) if bias is not None else None
    for first, last, low, high, mask in _query_blocks(run, window, q.device):
        extra = _added(added, mask, (first, last, low, high), q.dtype)
        target[:, :, first:last] = _dense(qs[:, :, first:last], ks[:, :, low:high], vs[:, :, low:high], extra, scale)


def _for_each_head(x: Tensor, heads: int) -> Tensor:
    """Return keys or values (n, K, S, d) as (n, N, S, d), one for each of the N heads of queries."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _block(x: Tensor, run: Run) -> Tensor:
    """Return the run's tokens as (n, N, L, d), a view."""
    return x[run.start : run.stop].view(run.count, run.length, *x.shape[1:]).transpose(1, 2)


def _query_blocks(run: Run, window: Window, device: torch.device) -> list[tuple[int, int, int, int, Tensor | None]]:
    """Return (first query, last, first key, last, mask or None) blocks that cover the window and little more."""
    length, keys = run.length, run.attended
    left, right = (length if side < 0 else side for side in window)
    if min(left, right) >= length - 1:
        return [(0, length, 0, keys, None)]
    step = length if left + right >= length else _QUERY_BLOCK
    blocks: list[tuple[int, int, int, int, Tensor | None]] = []
    for first in range(0, length, step):
        last = min(first + step, length)
        low, high = min(keys, max(0, first - left)), min(keys, last + right)
        blocks.append((first, last, low, high, _window_mask(first, last, low, high, left, right, device)))
    return blocks


def _window_mask(first: int, last: int, low: int, high: int, left: int, right: int, device: torch.device) -> Tensor:
    """Return (queries, keys) bool, True where the key lies inside the query's window."""
    distance = torch.arange(low, high, device=device) - torch.arange(first, last, device=device)[:, None]
    return (distance >= -left) & (distance <= right)


def _added(
    bias: Tensor | None, mask: Tensor | None, block: tuple[int, int, int, int], dtype: torch.dtype
) -> Tensor | None:
    """Return what is added to one block's scores: the bias there, and −inf outside the window."""
    if bias is None:
        return mask
    first, last, low, high = block
    bias = bias[..., first:last, low:high].to(dtype)
    return bias if mask is None else bias.masked_fill(~mask, float("-inf"))


def _dense(q: Tensor, k: Tensor, v: Tensor, extra: Tensor | None, scale: float) -> Tensor:
    """Return attention over equal blocks: q (n, N, L, d), k and v (n, N, S, d), extra bool or additive."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=extra, scale=scale)


def kernel_name(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Return what computes unbiased attention there: the names of a GPU's kernels, "fused" or "runs"."""
    kernel = varlen_kernel(device, dtype, head_dim)
    if kernel:
        return kernel.name
    return "fused" if fuses(device, dtype, head_dim) else "runs"
