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
from tercet.nn.jit.pool_kernel import PoolWords, pool_kernel
from tercet.nn.jit.row_kernels import (
    EmbedWords,
    NormWords,
    UnitWords,
    embed_kernel,
    layer_norm_kernel,
    unit_kernel,
)
from tercet.nn.jit.rows import units_of
from tercet.nn.jit.words import Lookups, bits
from tercet.nn.team import together


def fuses(x: Tensor) -> bool:
    """Whether the kernels here take rows like those of x: on a CPU, float32, filling vectors."""
    shape = vector_shape()
    fills = shape is not None and x.ndim == 2 and x.shape[1] % shape[0] == 0
    return fills and x.device.type == "cpu" and x.dtype == torch.float32


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


def embed(asked: Lookups, table: Tensor, places: Tensor | None, kinds: Tensor | None) -> Tensor:
    """Return the sum of the rows that each token has in the tables (·, H) of words, positions and types, (T, H).

    Raises:
        IndexError: a table lacks a row that is asked for.
    """
    tables = [part for part in (table, places, kinds) if part is not None]
    assert all(part.is_contiguous() and part.dtype == torch.float32 for part in tables), "the kernel reads memory"
    out = table.new_empty(asked.tokens, table.shape[1])
    words = EmbedWords(
        ids=asked.ids,
        table=table.data_ptr(),
        y=out.data_ptr(),
        positions=asked.positions,
        position_table=0 if places is None else places.data_ptr(),
        kinds=asked.kinds,
        kind_table=0 if kinds is None else kinds.data_ptr(),
        kinds_step=asked.kinds_step,
        rows=asked.tokens,
        width=table.shape[1],
        words=len(table),
        places=0 if places is None else len(places),
        types=0 if kinds is None else len(kinds),
        units=units_of(asked.tokens),
    )
    words.check(asked)
    together(embed_kernel(places is not None, kinds is not None), words)
    return out
