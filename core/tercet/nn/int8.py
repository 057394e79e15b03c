"""Weights in int8, and products with rows that are rounded as they come.

Weights are rounded by row of the weight, activations by token (`jit/rounding.py`): what one token is rounded to depends
on no other. Sums of products are whole numbers and exact, so a row of a product comes out the same among any number of
others.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.rounding import ROW, FinishingWords, RoundingWords, finishing, rounding
from tercet.nn.jit.rows import units_of
from tercet.nn.products import finished
from tercet.nn.team import compute_with, together

_ROWS = 512  # the row count that oneDNN chooses a layout for


class Int8Weight:
    """oneDNN's layout of int8 (`PackedWeight`): on Zen 5 twice the rate of bfloat16 and four times that of float32."""

    name: ClassVar[str] = "onednn-int8"
    laid = None
    fineness: ClassVar[int | None] = 3  # as for `OneDnnWeight`

    def __init__(self, weight: Tensor) -> None:
        rounded, self._scales, self._columns, self._sums = rounded_weight(weight)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._nothing = torch.zeros(len(weight))
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, [_ROWS, weight.shape[1]])

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the weight's rows and columns fill vectors."""
        shape = vector_shape()
        return shape is not None and not any(size % shape[0] for size in weight.shape)

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return activation(x Wᵀ + b) + residual for x (T, in) float32."""
        x = x.contiguous()
        rounded, steps = rounded_rows(x)
        weight = (self._weight, self._scales, self._zeros)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 0, *weight, None, 1.0, 0, torch.float32, "none", [], "none"
        )

        def compute(activation: str | None, residual: Tensor | None) -> Tensor:
            self._finish(y, steps, self._nothing if bias is None else bias, activation, residual)
            return y

        return finished(compute, activation, residual)

    def _finish(self, y: Tensor, steps: Tensor, bias: Tensor, activation: str | None, residual: Tensor | None) -> None:
        rows, width = y.shape
        words = FinishingWords(
            y=y.data_ptr(),
            steps=steps.data_ptr(),
            columns=self._columns.data_ptr(),
            scales=self._scales.data_ptr(),
            sums=self._sums.data_ptr(),
            bias=bias.data_ptr(),
            residual=0 if residual is None else residual.data_ptr(),
            rows=rows,
            width=width,
            units=units_of(rows),
        )
        together(finishing(activation, residual is not None), words)


@cache
def has_int8() -> bool:
    """Whether this processor and torch build multiply int8 fast: VNNI or AMX, and oneDNN's private operators."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if vector_shape() is None or not any(known.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return False
    with ThreadPoolExecutor(1, "tercet-trial", compute_with, (1,)) as pool:  # or its caller would keep helpers for it
        return pool.submit(_multiplies).result()


def _multiplies() -> bool:
    one = torch.eye(16)
    try:
        return torch.allclose(Int8Weight(one).multiply(one, None, None, None), one, atol=0.01)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def rounded_weight(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a weight (out, in) in int8, and of each row what a one is, the same by column, and the sum in float32."""
    weight = weight.float()
    scales = weight.abs().amax(1).clamp(min=1e-12) / 127
    rounded = (weight / scales[:, None]).round().to(torch.int8)
    return rounded, scales, rounded.T.contiguous(), (rounded.float().sum(1) * scales).contiguous()


def rounded_rows(x: Tensor, even: int = 1) -> tuple[Tensor, Tensor]:
    """Return (T, in) uint8, with memory for a multiple of so many rows, and (T, `ROW`) what is kept of each row."""
    rows, width = x.shape
    out, steps = torch.empty(-(-rows // even) * even, width, dtype=torch.uint8), torch.empty(rows, ROW)
    words = RoundingWords(x.data_ptr(), steps.data_ptr(), out.data_ptr(), rows, width, units_of(rows))
    together(rounding(), words)
    return out[:rows], steps
