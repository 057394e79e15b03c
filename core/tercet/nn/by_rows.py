"""Weights that stay as they are stored until there is time, and products with them by a kernel of our own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tercet.nn.jit.product_kernel import fits
from tercet.nn.mapped import bring_in
from tercet.nn.products import Numbers, Rows, finished, in_panels, kernel, panel_bytes, product


class RowWeight:
    """A float32 weight (`PackedWeight`), at first by rows, in the mapped file for instance, later in panels.

    Its rows may lie in several tensors, one after another.

    A row comes out the same among any number of others, one alone included, on any number of cores, before `lay` and
    after.
    """

    name: ClassVar[str] = "tercet"
    fineness: ClassVar[int | None] = None
    numbers: ClassVar[Numbers] = "floats"  # that it is multiplied in

    def __init__(self, *parts: Tensor) -> None:
        self._widths = [len(part) for part in parts]
        self._width, self._depth = sum(self._widths), parts[0].shape[1]
        self._nothing = parts[0].new_zeros(self._width)
        self._held = [part.contiguous() for part in parts], False  # what the kernel reads, and whether it is panels
        for part in self._held[0]:  # now, on the thread that loads, and not in a batch, on all cores
            bring_in(part)

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the kernel reads weights of this shape."""
        return fits(weight.shape[1], len(weight))

    @property
    def laid(self) -> bool:
        """Whether it lies in panels."""
        return self._held[1]

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in panels."""
        return panel_bytes(self._depth, self._width, self.numbers)

    def lay(self, place: Tensor | None = None) -> None:
        """Lay the weight into panels, on the calling thread; products may be under way on others.

        Args:
            place: (nbytes,) uint8 for them, or None for memory of their own.
        """
        parts, laid = self._held
        if laid:
            return
        panels = in_panels(torch.cat(parts) if len(parts) > 1 else parts[0], self.numbers, place)
        kernel(True, self._width, self.numbers)  # compiled here, or the next product would wait for that
        self._held = [panels], True

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return activation(x Wᵀ + b) + residual for x (…, in) float32."""
        assert x.dtype == torch.float32 and x.shape[-1] == self._depth, "the kernel reads memory, and takes it to be so"
        parts, laid = self._held
        held = [*zip(parts, [self._width] if laid else self._widths, strict=True)]
        bias, rows = self._nothing if bias is None else bias, self._rows(x)

        def compute(activation: str | None, residual: Tensor | None) -> Tensor:
            return product(rows, held, laid=laid, bias=bias, activation=activation, residual=residual)

        return finished(compute, activation, residual)

    def _rows(self, x: Tensor) -> Rows:
        return Rows(x.contiguous(), x.shape[:-1], self._depth, self.numbers)
