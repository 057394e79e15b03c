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
from tercet.nn.room import QUERY_BLOCK, SHORT

Window = tuple[int, int]  # how many tokens to the left and right may be attended to; -1 for all

_SHORT_HEADS = (16, 32, 64)  # values of a head that it takes
_KEYS = 32  # that a block of queries looks at a time: with 64 queries the fastest of seven sizes tried
_ALL = 1 << 30


@dataclass(frozen=True)
class VarlenKernel:
    """A kernel that reads packed sequences of any lengths.

    `attend(q, k, v, (cu_q, cu_k), (max_q, max_k), scale, window, query_blocks)` returns (T, N, d).
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

    def choose(
        q: Tensor, k: Tensor, v: Tensor, cu: Any, longest: Any, scale: float, window: Window, blocks: Tensor
    ) -> Tensor:
        if max(longest) > SHORT:
            return attend(q, k, v, cu, longest, scale, window, blocks)
        return short_attention(q, k, v, cu, blocks, scale, window)

    return choose


def short_attention(
    q: Tensor, k: Tensor, v: Tensor, cu: tuple[Tensor, Tensor], blocks: Tensor, scale: float, window: Window
) -> Tensor:
    """Return attention as `VarlenKernel.attend` does, for sequences of any length; q, k and v may be views."""
    tokens, heads, width = q.shape
    out = torch.empty(tokens, heads, width, dtype=q.dtype, device=q.device)
    left, right = (_ALL if side < 0 else side for side in window)
    kernels().attention[(len(blocks), heads)](
        q, k, v, out, blocks, *cu, scale / math.log(2), *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        heads, heads // k.shape[1], left, right,
        WIDTH=width, QUERIES=QUERY_BLOCK, KEYS=_KEYS, WINDOWED=window != (-1, -1), num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _flash_attn() -> VarlenKernel | None:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None

    def attend(
        q: Tensor, k: Tensor, v: Tensor, cu: Any, longest: Any, scale: float, window: Window, _: Tensor
    ) -> Tensor:
        out: Tensor = flash_attn_varlen_func(q, k, v, *cu, *longest, softmax_scale=scale, window_size=window)
        return out

    return VarlenKernel("flash-attn", attend)


def _torch_varlen() -> VarlenKernel | None:
    # `torch.nn.attention.varlen` calls the same operator, in 70 µs of the host's time instead of 30, and knew neither
    # scale nor window before torch 2.11.
    flash = getattr(torch.ops.aten, "_flash_attention_forward", None)
    if flash is None:
        return None

    def attend(
        q: Tensor, k: Tensor, v: Tensor, cu: Any, longest: Any, scale: float, window: Window, _: Tensor
    ) -> Tensor:
        left, right = window
        out: Tensor = flash(
            q, k, v, *cu, *longest, 0.0, False, False, scale=scale, window_size_left=left, window_size_right=right
        )[0]
        return out

    return VarlenKernel("torch-varlen", attend)
