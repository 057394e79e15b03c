"""Attention over packed sequences of any lengths on a GPU, by one kernel over the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tercet.nn.fused_rows import has_triton, kernels

Window = tuple[int, int]  # how many tokens to the left and right may be attended to; -1 for all

_SHORT = 512  # tokens; up to here ours is the faster one, and nothing longer was measured
_SHORT_HEADS = (16, 32, 64)  # values of a head that it takes
_QUERIES, _KEYS = 64, 32  # that a block computes at a time: the fastest of seven tried
_ALL = 1 << 30


@dataclass(frozen=True)
class VarlenKernel:
    """A kernel that reads packed sequences of any lengths.

    `attend(q, k, v, (cu_q, cu_k), (max_q, max_k), scale, window)` returns (T, N, d).
    """

    name: str
    attend: Callable[..., Tensor]


@cache
def varlen_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> VarlenKernel | None:
    """Return the kernel for this device and type, or None where attention goes run by run."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or head_dim % 8 or head_dim > 256:
        return None
    library = _flash_attn() or _torch_varlen()
    if library is None or head_dim not in _SHORT_HEADS or not has_triton():
        return library
    return VarlenKernel(f"triton, {library.name}", _short_or(library.attend))


def _short_or(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return what leaves only long sequences to the kernel of a library.

    Libraries compute 128 queries by 128 keys at a time, which a sequence of a hundred tokens leaves half empty: on an
    H100 a batch of 16,384 tokens of mixed lengths takes 108 µs so and 65 by ours, of 100 tokens each 65 and 49.
    """

    def choose(q: Tensor, k: Tensor, v: Tensor, cu: Any, longest: Any, scale: float, window: Window) -> Tensor:
        if max(longest) > _SHORT:
            return attend(q, k, v, cu, longest, scale, window)
        return short_attention(q, k, v, cu, longest[0], scale, window)

    return choose


def short_attention(
    q: Tensor, k: Tensor, v: Tensor, cu: tuple[Tensor, Tensor], longest: int, scale: float, window: Window
) -> Tensor:
    """Return attention as `VarlenKernel.attend` does, whose `longest` is that of the queries; views are fine."""
    tokens, heads, width = q.shape
    out = torch.empty(tokens, heads, width, dtype=q.dtype, device=q.device)
    left, right = (_ALL if side < 0 else side for side in window)
    kernels().attention[(-(-longest // _QUERIES), heads, len(cu[0]) - 1)](
        q, k, v, out, *cu, scale / math.log(2), *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        heads, heads // k.shape[1], left, right,
        WIDTH=width, QUERIES=_QUERIES, KEYS=_KEYS, WINDOWED=window != (-1, -1), num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _flash_attn() -> VarlenKernel | None:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, cu: Any, longest: Any, scale: float, window: Window) -> Tensor:
        out: Tensor = flash_attn_varlen_func(q, k, v, *cu, *longest, softmax_scale=scale, window_size=window)
        return out

    return VarlenKernel("flash-attn", attend)


def _torch_varlen() -> VarlenKernel | None:
    # `torch.nn.attention.varlen` calls the same operator, in 70 µs of the host's time instead of 30, and knew neither
    # scale nor window before torch 2.11.
    flash = getattr(torch.ops.aten, "_flash_attention_forward", None)
    if flash is None:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, cu: Any, longest: Any, scale: float, window: Window) -> Tensor:
        left, right = window
        out: Tensor = flash(
            q, k, v, *cu, *longest, 0.0, False, False, scale=scale, window_size_left=left, window_size_right=right
        )[0]
        return out

    return VarlenKernel("torch-varlen", attend)
