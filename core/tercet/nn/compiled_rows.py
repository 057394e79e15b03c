"""Row by row on a CPU, by compiled kernels: embeddings, norms and pooling in one pass over memory each.

Torch's own operations take more passes, and ten times as long as the work for few rows. Where the kernels do not run,
callers use torch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.layer_kernels import GATES, GateWords, RotateWords, gate_kernel, rotate_kernel
from tercet.nn.jit.pool_kernel import PoolWords, pool_kernel
from tercet.nn.jit.row_kernels import (
    EmbedWords,
    NormWords,
    RmsWords,
    UnitWords,
    embed_kernel,
    layer_norm_kernel,
    rms_norm_kernel,
    unit_kernel,
)
from tercet.nn.jit.rows import units_of
from tercet.nn.jit.words import Lookups, bits
from tercet.nn.team import together


def fills(width: int) -> bool:
    """Whether rows of so many numbers fill vectors, which this processor must have."""
    shape = vector_shape()
    return shape is not None and width % shape[0] == 0


def fuses(x: Tensor) -> bool:
    """Whether the kernels here take rows like those of x (T, H): on a CPU, float32, filling vectors."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 2 and fills(x.shape[1])


def side_by_side(x: Tensor) -> Tensor:
    """Return x (T, N, d) as kernels read it: each token's heads one after the other, the tokens anywhere."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Return (x − mean) / √(variance + eps) · weight + bias, (T, H)."""
    x = x.contiguous()
    out, (rows, width) = torch.empty_like(x), x.shape
    words = NormWords(
        x=x.data_ptr(),
        y=out.data_ptr(),
        weight=weight.data_ptr(),
        bias=0 if bias is None else bias.data_ptr(),
        rows=rows,
        width=width,
        share=bits(1 / width),
        eps=bits(eps),
        units=units_of(rows),
    )
    together(layer_norm_kernel(bias is not None), words)
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor | None:
    """Return x / rms(x) · (weight + offset) over the last dimension of x (T, H) or of a view (T, N, d).

    None where the kernel does not take it.
    """
    heads = x if x.ndim == 3 else x[:, None]
    if not fuses(heads[:, 0]) or weight.dtype != torch.float32:
        return None
    rows, count, width = heads.shape
    heads = side_by_side(heads)
    out = x.new_empty(x.shape)
    words = RmsWords(
        x=heads.data_ptr(),
        y=out.data_ptr(),
        weight=weight.data_ptr(),
        rows=rows,
        step=heads.stride(0),
        heads=count,
        width=width,
        share=bits(1 / width),
        eps=bits(eps),
        offset=bits(offset),
        units=units_of(rows),
    )
    together(rms_norm_kernel(), words)
    return out


def unit(x: Tensor, least: float) -> Tensor:
    """Return x / max(‖x‖, least) for each row, (T, H)."""
    x = x.contiguous()
    out, (rows, width) = torch.empty_like(x), x.shape
    words = UnitWords(x.data_ptr(), out.data_ptr(), rows, width, bits(least), units=units_of(rows))
    together(unit_kernel(), words)
    return out


def pooled(x: Tensor, spans: NDArray[np.int64], how: str) -> Tensor:
    """Return one row for each sequence, (B, H).

    Args:
        x: (T, H).
        spans: `PackedBatch.pooled_spans`.
        how: "mean", "mean_sqrt_len" or "cls".
    """
    x, out = x.contiguous(), x.new_empty(len(spans), x.shape[1])
    words = PoolWords(x=x.data_ptr(), y=out.data_ptr(), spans=spans.ctypes.data, width=x.shape[1], units=len(spans))
    together(pool_kernel(how), words)
    return out


def embed(asked: Lookups, table: Tensor | None, places: Tensor | None, kinds: Tensor | None) -> Tensor:
    """Return the sum of the rows that each token has in the tables (·, H) of words, positions and types, (T, H).

    Raises:
        IndexError: a table lacks a row that is asked for.
    """
    tables = table, places, kinds
    there = [part for part in tables if part is not None]
    assert all(part.is_contiguous() and part.dtype == torch.float32 for part in there), "the kernel reads memory"
    out = there[0].new_empty(asked.tokens, there[0].shape[1])
    addresses = [0 if part is None else part.data_ptr() for part in tables]
    rows = [0 if part is None else len(part) for part in tables]
    words = EmbedWords(
        ids=asked.ids,
        table=addresses[0],
        y=out.data_ptr(),
        positions=asked.positions,
        position_table=addresses[1],
        kinds=asked.kinds,
        kind_table=addresses[2],
        kinds_step=asked.kinds_step,
        rows=asked.tokens,
        width=out.shape[1],
        words=rows[0],
        places=rows[1],
        types=rows[2],
        units=units_of(asked.tokens),
    )
    words.check(asked)
    together(embed_kernel(*(part is not None for part in tables)), words)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor | None:
    """Return x (T, N, d) with its first dimensions rotated, or None where the kernel does not take it.

    Args:
        x: a view too, if heads lie side by side. cos, sin: (T, 1, at most d), both halves alike.
    """
    (tokens, heads, width), turned = x.shape, cos.shape[-1]
    if not (fuses(x[:, 0]) and fuses(cos[:, 0]) and fills(turned // 2)):
        return None
    x = side_by_side(x)
    out = x.new_empty(tokens, heads, width)
    words = RotateWords(
        x=x.data_ptr(),
        y=out.data_ptr(),
        cos=cos.data_ptr(),
        sin=sin.data_ptr(),
        rows=tokens,
        step=x.stride(0),
        heads=heads,
        width=width,
        turned=turned,
        units=units_of(tokens),
    )
    together(rotate_kernel(), words)
    return out


def gate(x: Tensor, activation: str | None, gate_first: bool) -> Tensor | None:
    """Return act(gate) · up for x (T, 2 I), or None where the kernel does not take it."""
    if activation not in GATES or not fuses(x[:, : x.shape[1] // 2]):
        return None
    x, (rows, width) = x.contiguous(), x.shape
    out, half = x.new_empty(rows, width // 2), width // 2 * x.itemsize
    words = GateWords(
        gate=x.data_ptr() + (0 if gate_first else half),
        up=x.data_ptr() + (half if gate_first else 0),
        y=out.data_ptr(),
        rows=rows,
        width=width // 2,
        units=units_of(rows),
    )
    together(gate_kernel(activation), words)
    return out
