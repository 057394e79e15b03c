"""Products by a kernel of our own, with weights by rows or in panels, of float32 or of pairs of int16."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tercet.nn.activations import finish
from tercet.nn.jit.code import Compiled
from tercet.nn.jit.product_kernel import (
    PanelsWords,
    ProductWords,
    panels_kernel,
    panels_shape,
    product_kernel,
    vectors_of,
)
from tercet.nn.jit.tile_product import TileProductWords, panel_vectors, tile_kernel
from tercet.nn.team import together

Numbers = Literal["floats", "pairs", "parts"]  # what is multiplied: see `jit/pairs.py` and `jit/parts.py`
_FUSED = (None, "gelu")  # activations that our kernels compute


class Rows(NamedTuple):
    """Rows of x as a kernel reads them.

    Attributes:
        memory: of float32 or of pairs. shape: (…), whose product they are. depth: numbers of each, or pairs.
        numbers: what is multiplied. steps: of pairs, (rows,) float32, what a one of each row is worth.
    """

    memory: Tensor
    shape: torch.Size
    depth: int
    numbers: Numbers = "floats"
    steps: Tensor | None = None


def finished(
    product: Callable[[str | None, Tensor | None], Tensor], activation: str | None, residual: Tensor | None
) -> Tensor:
    """Return what `product(activation, residual)` does, left without both where our kernels lack the activation."""
    if activation in _FUSED:
        return product(activation, None if residual is None else residual.contiguous())
    return finish(product(None, None), activation, residual)


def vectors_for(width: int, numbers: Numbers) -> int:
    """Return how many vectors wide the panels of a weight are."""
    return panel_vectors(width) if numbers == "parts" else vectors_of(width)


def words_of(numbers: Numbers) -> type[ProductWords]:
    """Return the words of what multiplies such numbers."""
    return TileProductWords if numbers == "parts" else ProductWords


def kernel(laid: bool, width: int, numbers: Numbers) -> Compiled:
    """Return what multiplies by such a weight."""
    vectors = vectors_for(width, numbers)
    return tile_kernel(laid, vectors) if numbers == "parts" else product_kernel(laid, vectors, numbers == "pairs")


def panel_bytes(depth: int, width: int, numbers: Numbers) -> int:
    """Return how many bytes a weight (width, depth) takes in panels."""
    return math.prod(panels_shape(depth, width, vectors_for(width, numbers))) * torch.float32.itemsize


def in_panels(weight: Tensor, numbers: Numbers, place: Tensor | None = None) -> Tensor:
    """Return a weight (width, depth) of float32, or what is as long, in panels.

    Args:
        numbers: what it will be multiplied in.
        place: (`panel_bytes`,) uint8 for them, or None for memory of their own.
    """
    width, depth = weight.shape
    vectors = vectors_for(width, numbers)
    shape = panels_shape(depth, width, vectors)
    panels = weight.new_empty(shape) if place is None else place.view(torch.float32).view(shape)
    words = PanelsWords(weight.data_ptr(), panels.data_ptr(), depth, width, units=len(panels))
    together(panels_kernel(vectors), words)
    return panels


def product(
    x: Rows,
    parts: Sequence[tuple[Tensor, int]],
    *,
    laid: bool,
    bias: Tensor,
    activation: str | None,
    residual: Tensor | None,
    scales: Tensor | None = None,
) -> Tensor:
    """Return activation(x Wᵀ + b) + residual, (…, width) float32.

    Args:
        parts: of the weight, one after another, (width, depth) each, or one in panels, `laid`; and how wide they are.
        bias: (width,). activation: None or "gelu". residual: (…, width), without gaps.
        scales: of pairs, (width,) float32, what a one of each row of the weight is worth.
    """
    width, cores = sum(width for _, width in parts), torch.get_num_threads()
    y = x.memory.new_empty(*x.shape, width, dtype=torch.float32)
    first = 0  # byte of a row of y that a part begins with
    for part, wide in parts:
        words = words_of(x.numbers).of(
            vectors_for(wide, x.numbers),
            x=x.memory.data_ptr(),
            weight=part.data_ptr(),
            bias=bias.data_ptr() + first,
            residual=0 if residual is None else residual.data_ptr() + first,
            y=y.data_ptr() + first,
            rows=x.shape.numel(),
            depth=x.depth,
            width=wide,
            step=width,
            gelu=int(activation == "gelu"),
            cores=cores,
            steps=0 if x.steps is None else x.steps.data_ptr(),
            scales=0 if scales is None else scales.data_ptr() + first,
        )
        together(kernel(laid, wide, x.numbers), words)
        first += wide * y.itemsize
    return y
