"""Products in float32 by AMX, whose tiles multiply bfloat16: of x and of the weight it gets three parts each."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tercet.nn.by_rows import RowWeight
from tercet.nn.jit.parts import PARTS, STEP, PartingWords, parting_kernel, parting_units
from tercet.nn.jit.product_kernel import fits
from tercet.nn.jit.tiles import ROWS, require_tiles
from tercet.nn.products import Numbers, Rows
from tercet.nn.team import together


class TileWeight(RowWeight):
    """A float32 weight (`PackedWeight`) that lies as a `RowWeight` does, and whose products are as exact, in less time.

    Raises:
        RuntimeError: there are no tiles here.
    """

    name: ClassVar[str] = "tercet-amx"
    numbers: ClassVar[Numbers] = "parts"

    def __init__(self, *parts: Tensor) -> None:
        require_tiles()
        super().__init__(*parts)

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the weight's columns fill tiles, and its rows a panel."""
        return fits(weight.shape[1], len(weight)) and weight.shape[1] % STEP == 0

    def _rows(self, x: Tensor) -> Rows:
        x, count = x.contiguous(), x.shape[:-1].numel()
        units = parting_units(count)
        if not units:
            return Rows(x, x.shape[:-1], self._depth, self.numbers)
        parts = x.new_empty(-(-count // ROWS), self._depth // STEP, PARTS, ROWS, STEP, dtype=torch.bfloat16)
        words = PartingWords(x.data_ptr(), parts.data_ptr(), count, self._depth, units)
        together(parting_kernel(), words)
        return Rows(x, x.shape[:-1], self._depth, self.numbers, parts=parts)
