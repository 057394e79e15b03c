"""Products in float32 by AMX, whose tiles multiply bfloat16: of x and of the weight it gets three parts each."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tercet.nn.by_rows import RowWeight
from tercet.nn.jit.parts import STEP
from tercet.nn.jit.product_kernel import fits
from tercet.nn.jit.tiles import require_tiles
from tercet.nn.products import Numbers


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
