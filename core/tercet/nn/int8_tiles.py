"""Weights in int8, and products by AMX, which multiplies whole tiles of them, rounded as `int8.py` has it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tercet.nn.int8 import rounded_rows, rounded_weight
from tercet.nn.jit.byte_product import STEP, byte_product_kernel
from tercet.nn.jit.product_kernel import blocks_of
from tercet.nn.jit.rounding import ByteProductWords
from tercet.nn.jit.tile_product import panel_vectors
from tercet.nn.jit.tiles import ROWS, WORDS, require_tiles
from tercet.nn.products import finished
from tercet.nn.team import together


class Int8TileWeight:
    """A weight (`PackedWeight`) in panels of tiles.

    A row comes out the same among any number of others, one alone included, on any number of cores.

    Raises:
        RuntimeError: there are no tiles here.
    """

    name: ClassVar[str] = "tercet-amx-int8"
    fineness: ClassVar[int | None] = None
    laid = True

    def __init__(self, weight: Tensor) -> None:
        require_tiles()
        rounded, self._scales, self._columns, self._sums = rounded_weight(weight)
        self._across = panel_vectors(len(weight))
        self._panels = _in_panels(rounded, self._across)
        self._nothing = torch.zeros(len(weight))

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the weight's columns fill tiles, and its rows a panel."""
        return weight.shape[1] % STEP == 0 and len(weight) >= 2 * WORDS

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return activation(x Wᵀ + b) + residual for x (T, in) float32."""
        rounded, steps = rounded_rows(x.contiguous(), even=ROWS)
        rows, width, panels = len(x), len(self._scales), len(self._panels)

        def compute(activation: str | None, residual: Tensor | None) -> Tensor:
            y = torch.empty(rows, width)
            words = ByteProductWords(
                x=rounded.data_ptr(),
                weight=self._panels.data_ptr(),
                y=y.data_ptr(),
                steps=steps.data_ptr(),
                columns=self._columns.data_ptr(),
                scales=self._scales.data_ptr(),
                sums=self._sums.data_ptr(),
                bias=(self._nothing if bias is None else bias).data_ptr(),
                residual=0 if residual is None else residual.data_ptr(),
                rows=rows,
                depth=x.shape[1],
                width=width,
                panels=panels,
                units=panels * blocks_of(rows),
            )
            together(byte_product_kernel(self._across, activation, residual is not None), words)
            return y

        return finished(compute, activation, residual)


def _in_panels(weight: Tensor, across: int) -> Tensor:
    """Return a weight (out, in) of int8 as `byte_product` reads it; the last panel ends where the weight does."""
    width, depth = weight.shape
    wide = across * WORDS
    first = [min(at, width - wide) for at in range(0, width, wide)]
    panels = torch.stack([weight[at : at + wide] for at in first])
    return panels.view(len(first), across, WORDS, depth // STEP, ROWS, 4).permute(0, 3, 1, 4, 2, 5).contiguous()
