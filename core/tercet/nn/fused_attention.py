"""Attention on a CPU by the compiled kernel: what it runs for, and how it is called."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tercet.nn.batch import PackedBatch
from tercet.nn.compiled_rows import side_by_side
from tercet.nn.distance_bias import DistanceBias
from tercet.nn.jit.attention_kernel import AttentionWords, attention_kernel
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.parts import STEP
from tercet.nn.jit.tile_attention import tile_attention_kernel
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.jit.words import bits
from tercet.nn.team import together

_ALL = 1 << 30  # tokens on a side where all are seen
_LARGEST_HEAD = 256  # numbers of a head: a block's keys and values then take 512 kB of a stack


def fuses(device: torch.device, dtype: torch.dtype, dims: int) -> bool:
    """Whether there is a kernel for heads of so many numbers."""
    shape = vector_shape()
    known = device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
    return known and shape is not None and dims % shape[0] == 0 and dims <= _LARGEST_HEAD


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    batch: PackedBatch,
    scale: float,
    window: tuple[int, int],
    bias: DistanceBias | None = None,
    coarse: bool = False,
) -> Tensor:
    """Return softmax(scale · q kᵀ + bias) v within each sequence, (T, N · d) of the type of q; filler's rows are zero.

    Args:
        q: (T, N, d) float32 or bfloat16 on a CPU.
        k: (T, K, d). v: (T, K, d).
        batch: the shapes; `attended` and `window` limit which keys are seen.
        scale: of the scores.
        window: tokens to the left and right that are seen, -1 for all.
        bias: of no sequence longer than it has distances.
        coarse: as in `attention`.
    """
    heads, dims = q.shape[1:]
    q, k, v = map(side_by_side, (q, k, v))
    out = q.new_empty(len(q), heads * dims)
    extents = batch.extents
    if batch.filler:
        out[int(extents[-1, :2].sum()) :] = 0  # as in `attention`
    left, right = (_ALL if side < 0 else side for side in window)
    words = AttentionWords(
        q=q.data_ptr(),
        k=k.data_ptr(),
        v=v.data_ptr(),
        out=out.data_ptr(),
        q_step=q.stride(0),
        k_step=k.stride(0),
        v_step=v.stride(0),
        heads=heads,
        group=heads // k.shape[1],
        extents=extents.ctypes.data,
        left=left,
        right=right,
        scale=bits(scale * math.log2(math.e)),
        bias=0 if bias is None else bias.table.data_ptr(),
        bias_step=0 if bias is None else bias.table.shape[1],
        bias_middle=0 if bias is None else bias.longest - 1,
        bias_share=bits(1 / scale),
        units=len(extents) * heads,
    )
    limits = window != (-1, -1), bias is not None
    in_tiles = (coarse or q.dtype == torch.bfloat16) and dims % STEP == 0 and has_tiles()
    kernel = tile_attention_kernel if in_tiles else attention_kernel
    together(kernel(dims, q.dtype, *limits), words)
    return out
