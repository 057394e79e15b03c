"""Weights in int16, as fast as int8 would be where a processor has no fast products of int8, and more exact.

Rows of x are rounded to whole steps of their own (`jit/pairs.py`), rows of the weight to steps as small as its sums
allow: those of a block of columns must fit an int32. That is about 13 bits each, so that no number far from the others
needs care, as it does in int8.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tercet.nn.compiled_rows import fills
from tercet.nn.jit.pairs import PairingWords, pairing_kernel
from tercet.nn.jit.product_kernel import fits
from tercet.nn.jit.rows import units_of
from tercet.nn.products import Rows, finished, in_panels, kernel, product
from tercet.nn.team import together


class Int16Weight:
    """A weight (`PackedWeight`) in panels of pairs of int16.

    On AVX2, 1.5 times the rate of float32, from half of the memory. A row comes out the same among any number of
    others, one alone included, on any number of cores.
    """

    name: ClassVar[str] = "tercet-int16"
    fineness: ClassVar[int | None] = None
    laid = True

    def __init__(self, weight: Tensor) -> None:
        rounded, self._scales = _round(weight.float().contiguous(), weight=True)
        self._panels = in_panels(rounded.view(torch.float32), "pairs")
        self._nothing = torch.zeros(len(weight))
        kernel(True, len(weight), "pairs")  # compiled here, and not in a batch

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the weight's rows and columns fill vectors, its pairs too."""
        width, depth = weight.shape
        return fills(width) and fills(depth) and fits(depth // 2, width)

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return activation(x Wᵀ + b) + residual for x (T, in) float32."""
        rounded, steps = _round(x.contiguous(), weight=False)
        rows = Rows(rounded, x.shape[:-1], x.shape[-1] // 2, "pairs", steps)

        def compute(activation: str | None, residual: Tensor | None) -> Tensor:
            return product(
                rows,
                [(self._panels, len(self._scales))],
                laid=True,
                bias=self._nothing if bias is None else bias,
                activation=activation,
                residual=residual,
                scales=self._scales,
            )

        return finished(compute, activation, residual)


def _round(x: Tensor, weight: bool) -> tuple[Tensor, Tensor]:
    """Return the rows of x or of a weight in int16, and (T,) what a one of each is."""
    rows, width = x.shape
    out, steps = x.new_empty(rows, width, dtype=torch.int16), x.new_empty(rows)
    words = PairingWords(x.data_ptr(), out.data_ptr(), steps.data_ptr(), rows, width, units_of(rows))
    together(pairing_kernel(weight), words)
    return out, steps
