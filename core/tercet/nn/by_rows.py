"""Weights that stay as they are stored until there is time, and products with them by a kernel of our own."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from tercet.nn.activations import finish
from tercet.nn.jit.product_kernel import (
    PanelsWords,
    ProductWords,
    fits,
    panels_kernel,
    panels_shape,
    product_kernel,
    vectors_of,
)
from tercet.nn.mapped import bring_in
from tercet.nn.team import together

_FUSED = (None, "gelu")  # activations that the kernel computes


class RowWeight:
    """A float32 weight (`PackedWeight`), at first by rows, in the mapped file for instance, later in panels.

    Its rows may lie in several tensors, one after another.

    A row comes out the same among any number of others, one alone included, on any number of cores, before `lay` and
    after.
    """

    name: ClassVar[str] = "tercet"
    fineness: ClassVar[int | None] = None

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
        return math.prod(panels_shape(self._depth, self._width)) * torch.float32.itemsize

    def lay(self, place: Tensor | None = None) -> None:
        """Lay the weight into panels, on the calling thread; products may be under way on others.

        Args:
            place: (nbytes,) uint8 for them, or None for memory of their own.
        """
        parts, laid = self._held
        if laid:
            return
        weight = torch.cat(parts) if len(parts) > 1 else parts[0]
        place = torch.empty(self.nbytes, dtype=torch.uint8) if place is None else place
        panels = place.view(torch.float32).view(panels_shape(self._depth, self._width))
        words = PanelsWords(weight.data_ptr(), panels.data_ptr(), self._depth, self._width, units=len(panels))
        together(panels_kernel(vectors_of(self._width)), words)
        product_kernel(True, vectors_of(self._width))  # compiled here, or the next product would wait for that
        self._held = [panels], True

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return activation(x Wᵀ + b) + residual for x (…, in) float32."""
        fused = activation in _FUSED
        added = residual.contiguous() if fused and residual is not None else None
        y = self._product(x.contiguous(), self._nothing if bias is None else bias, activation if fused else None, added)
        return y if fused else finish(y, activation, residual)

    def _product(self, x: Tensor, bias: Tensor, activation: str | None, residual: Tensor | None) -> Tensor:
        assert x.dtype == torch.float32 and x.shape[-1] == self._depth, "the kernel reads memory, and takes it to be so"
        parts, laid = self._held
        rows, cores = x.numel() // self._depth, torch.get_num_threads()
        y = x.new_empty(*x.shape[:-1], self._width)
        first = 0  # byte of a row of y that a part begins with
        for part, width in zip(parts, [self._width] if laid else self._widths, strict=True):
            words = ProductWords.of(
                x=x.data_ptr(),
                weight=part.data_ptr(),
                bias=bias.data_ptr() + first,
                residual=0 if residual is None else residual.data_ptr() + first,
                y=y.data_ptr() + first,
                rows=rows,
                depth=self._depth,
                width=width,
                step=self._width,
                gelu=int(activation == "gelu"),
                cores=cores,
            )
            together(product_kernel(laid, vectors_of(width)), words)
            first += width * y.itemsize
        return y
