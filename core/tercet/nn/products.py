"""Products by a kernel of our own, with weights by rows or in panels, of float32 or of pairs of int16."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tercet.nn.activations import finish
from tercet.nn.jit.product_kernel import (
    PanelsWords,
    ProductWords,
    panels_kernel,
    panels_shape,
    product_kernel,
    vectors_of,
)
from tercet.nn.team import together

_FUSED = (None, "gelu")  # activations that our kernels compute


class Units(NamedTuple):
    """What a one of int16 is worth, float32.

    Attributes:
        steps: (rows,), of each row of x. scales: (width,), of each row of the weight.
    """

    steps: Tensor
    scales: Tensor


def finished(
    product: Callable[[str | None, Tensor | None], Tensor], activation: str | None, residual: Tensor | None
) -> Tensor:
    """Return what `product(activation, residual)` does, left without both where our kernels lack the activation."""
    if activation in _FUSED:
        return product(activation, None if residual is None else residual.contiguous())
    return finish(product(None, None), activation, residual)


def panel_bytes(depth: int, width: int) -> int:
    """Return how many bytes a weight (width, depth) takes in panels."""
    return math.prod(panels_shape(depth, width)) * torch.float32.itemsize


def in_panels(weight: Tensor, place: Tensor | None = None) -> Tensor:
    """Return a weight (width, depth) of float32, or what is as long, in panels.

    Args:
        place: (`panel_bytes`,) uint8 for them, or None for memory of their own.
    """
    width, depth = weight.shape
    shape = panels_shape(depth, width)
    panels = weight.new_empty(shape) if place is None else place.view(torch.float32).view(shape)
    words = PanelsWords(weight.data_ptr(), panels.data_ptr(), depth, width, units=len(panels))
    together(panels_kernel(vectors_of(width)), words)
    return panels


def product(
    x: Tensor,
    parts: Sequence[tuple[Tensor, int]],
    *,
    laid: bool,
    bias: Tensor,
    activation: str | None,
    residual: Tensor | None,
    units: Units | None = None,
) -> Tensor:
    """Return activation(x Wᵀ + b) + residual, (…, width) float32.

    Args:
        x: (…, depth) float32, or (…, 2 depth) int16 with its `units`.
        parts: of the weight, one after another, (width, depth) each, or one in panels, `laid`; and how wide they are.
        bias: (width,). activation: None or "gelu". residual: (…, width), without gaps.
    """
    x = x.contiguous().view(torch.float32)
    depth, width = x.shape[-1], sum(width for _, width in parts)
    rows, cores = x.numel() // depth, torch.get_num_threads()
    y = x.new_empty(*x.shape[:-1], width)
    first = 0  # byte of a row of y that a part begins with
    for part, wide in parts:
        words = ProductWords.of(
            x=x.data_ptr(),
            weight=part.data_ptr(),
            bias=bias.data_ptr() + first,
            residual=0 if residual is None else residual.data_ptr() + first,
            y=y.data_ptr() + first,
            rows=rows,
            depth=depth,
            width=wide,
            step=width,
            gelu=int(activation == "gelu"),
            cores=cores,
            steps=0 if units is None else units.steps.data_ptr(),
            scales=0 if units is None else units.scales.data_ptr() + first,
        )
        together(product_kernel(laid, vectors_of(wide), units is not None), words)
        first += wide * y.itemsize
    return y
