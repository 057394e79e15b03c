"""Attention over packed sequences of any lengths on a GPU, by one kernel over the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from tercet.nn.batch import PackedBatch
from tercet.nn.fused_rows import has_triton, kernels
from tercet.nn.room import QUERY_BLOCK, SHORT

Window = tuple[int, int]  # how many tokens to the left and right may be attended to; -1 for all

_SHORT_HEADS = (16, 32, 64)  # values of a head that it takes
_KEYS = 32  # that a block of queries looks at a time: with 64 queries the fastest of seven sizes tried
_ALL = 1 << 30


Attend = Callable[[Tensor, Tensor, Tensor, PackedBatch, float, Window], Tensor]


@dataclass(frozen=True)
class VarlenKernel:
    """A kernel that reads packed sequences of any lengths.

    `attend(q, k, v, batch, scale, window)` returns (T, N, d).
    """

    name: str
    attend: Attend


@cache
def varlen_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> VarlenKernel | None:
    """Return the kernel for this device and type, or None where attention goes run by run."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or head_dim % 8 or head_dim > 256:
        return None
    library = _flash_attn() or _torch_varlen()
    if library is None or head_dim not in _SHORT_HEADS or not has_triton():
        return library
    return VarlenKernel(f"triton, {library.name}", _short_or(library.attend))


def _short_or(attend: Attend) -> Attend:
    """Return what leaves only long sequences to the kernel of a library.

    Libraries compute 128 queries by 128 keys at a time, which a sequence of a hundred tokens leaves half empty: on an
    H100 a batch of 16,384 tokens of mixed lengths takes 108 µs so and 65 by ours, of 100 tokens each 65 and 49.
    """

    def choose(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scale: float, window: Window) -> Tensor:
        return (attend if batch.max_seqlen > SHORT else short_attention)(q, k, v, batch, scale, window)

    return choose


def short_attention(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scale: float, window: Window) -> Tensor:
    """Return attention as `VarlenKernel.attend` does, for sequences of any length; q, k and v may be views."""
    assert batch.query_blocks is not None
    tokens, heads, width = q.shape
    out = torch.empty(tokens, heads, width, dtype=q.dtype, device=q.device)
    left, right = (_ALL if side < 0 else side for side in window)
    kernels().attention[(len(batch.query_blocks), heads)](
        q, k, v, out, batch.query_blocks, batch.cu_seqlens, batch.key_counts, scale / math.log(2),
        *q.stride()[:2], *k.stride()[:2], *v.stride()[:2], heads, heads // k.shape[1], left, right,
        WIDTH=width, QUERIES=QUERY_BLOCK, KEYS=_KEYS, WINDOWED=window != (-1, -1), num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _attended(k: Tensor, v: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return the keys and values that may be attended to, where each sequence's begin, and the most of one."""
    if batch.attended is None:
        return k, v, batch.cu_seqlens, batch.max_seqlen
    index, starts = batch.attended_index
    return k[index], v[index], starts, max(batch.attended)


def _flash_attn() -> VarlenKernel | None:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scale: float, window: Window) -> Tensor:
        k, v, starts, most = _attended(k, v, batch)
        out: Tensor = flash_attn_varlen_func(
            q, k, v, batch.cu_seqlens, starts, batch.max_seqlen, most, softmax_scale=scale, window_size=window
        )
        return out

    return VarlenKernel("flash-attn", attend)


def _torch_varlen() -> VarlenKernel | None:
    # `torch.nn.attention.varlen` calls the same operator, in 70 µs of the host's time instead of 30, and knew neither
    # scale nor window before torch 2.11.
    flash = getattr(torch.ops.aten, "_flash_attention_forward", None)
    if flash is None:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scale: float, window: Window) -> Tensor:
        k, v, starts, most = _attended(k, v, batch)
        left, right = window
        out: Tensor = flash(
            q, k, v, batch.cu_seqlens, starts, batch.max_seqlen, most, 0.0, False, False,
            scale=scale, window_size_left=left, window_size_right=right,
        )[0]  # fmt: skip
        return out

    return VarlenKernel("torch-varlen", attend)
