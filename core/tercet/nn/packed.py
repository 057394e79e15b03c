"""Packed weights: what a CPU multiplies by faster than by `F.linear`, and the products with it."""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from tercet.nn.activations import finish
from tercet.nn.by_rows import RowWeight
from tercet.nn.by_tiles import TileWeight
from tercet.nn.int8 import Int8Weight, has_int8
from tercet.nn.int8_tiles import Int8TileWeight
from tercet.nn.int16 import Int16Weight
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.pairs import has_pairs
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.processor import has_avx512

# oneDNN's own name and algorithm for each activation that it can fuse into the product.
_FUSED = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "tanh": ("tanh", ""),
}
if not has_avx512():
    # oneDNN reads erf off a table, slowly without AVX-512: its GELU costs a quarter of the product, torch's a tenth.
    del _FUSED["gelu"]
BYTES_A_ROUNDED_WEIGHT = 2  # of int16; of int8 oneDNN's and the same by column
IN_INT8 = (Int8TileWeight, Int8Weight)  # what multiplies in int8, first what is preferred
_ONEDNN_ROWS = 512  # oneDNN chooses a layout for a row count; one that suits bulk also serves short queries


class PackedWeight(Protocol):
    """A weight (out, in) as a kernel reads it, made from one by rows.

    On the processors that it is chosen for, a row of a product comes out the same to the last bit among any number of
    others from two up.

    Attributes:
        name: of the kernel.
        fineness: between a number and its double, products are given at most 2 to this power row counts; see
            `linear.even_rows`. None where any count is as good, one row included.
    """

    name: ClassVar[str]
    fineness: ClassVar[int | None]

    @property
    def laid(self) -> bool | None:
        """Whether our own kernel multiplies by it where it is from now on; None where a library's does."""
        ...

    def __init__(self, weight: Tensor) -> None: ...

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether it can hold a weight of this shape."""
        ...

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return activation(x Wᵀ + b) + residual for x (…, in) of two rows or more."""
        ...


class _FitsAll:
    """What any weight can be put into."""

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether it can hold a weight of this shape: any."""
        return True


class OneDnnWeight(_FitsAll):
    """oneDNN's blocked layout: in float32 2.3 times the rate of `F.linear` on AMD (Zen 5), the same answer to 4e-6."""

    name: ClassVar[str] = "onednn-packed"
    laid = None
    # A kernel is compiled and kept for each row count: 1.1 GB were measured after a hundred of them of one product.
    fineness: ClassVar[int | None] = 3

    def __init__(self, weight: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ONEDNN_ROWS)

    def multiply(self, x: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
        """Return the product, with what oneDNN knows to do besides fused into it."""
        linear = torch.ops.mkldnn._linear_pointwise
        if residual is not None and activation is None:
            return linear.binary(x, residual, self._weight, bias, "add")  # type: ignore[no-any-return]
        attribute, algorithm = _FUSED.get(activation, _FUSED[None])
        y: Tensor = linear(x, self._weight, bias, attribute, [], algorithm)
        return finish(y, None if activation in _FUSED else activation, residual)


def states_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of what weights of `dtype` are multiplied with: their own, and float32 where they are rounded."""
    return torch.float32 if is_rounded(dtype) else dtype


def is_rounded(dtype: torch.dtype) -> bool:
    """Whether a model "in" this type has the weights of its products in whole numbers, and all else in float32."""
    return not dtype.is_floating_point


@cache
def packings(dtype: torch.dtype) -> tuple[type[PackedWeight], ...]:
    """Return what products with weights of `dtype` are fastest by on this processor, first what is preferred."""
    if dtype == torch.int8:
        return IN_INT8[0 if has_tiles() else 1 :] if has_int8() else ()
    if dtype == torch.int16:
        return (Int16Weight,) if has_pairs() else ()
    layouts: tuple[type[PackedWeight], ...] = ()
    if dtype in (torch.float32, torch.bfloat16) and torch._C._has_mkldnn and runs(OneDnnWeight, dtype):
        layouts = (OneDnnWeight,)
    shape = vector_shape()  # with vectors of four, on ARM, our kernel has not been measured
    ours = dtype == torch.float32 and shape is not None and shape[0] > 4
    if not ours:
        return layouts
    return (TileWeight, RowWeight, *layouts) if has_tiles() else (RowWeight, *layouts)


def packing(dtype: torch.dtype, weight: Tensor | None = None) -> type[PackedWeight] | None:
    """Return the first of `packings` that fits the weight, if one is given; None means by `F.linear`."""
    return next((kind for kind in packings(dtype) if weight is None or kind.fits(weight)), None)


def batch_tokens(dtype: torch.dtype) -> int:
    """Return how many tokens a batch should have for what multiplies by weights of `dtype`.

    Measured: throughput is flat from 1 k to 8 k in float32, and the smallest keeps latency low; bfloat16, which takes a
    third of the time where it is fast (AMX), gains a tenth by 2 k.
    """
    return 2_048 if dtype == torch.bfloat16 else 1_024


def runs(packed: type[PackedWeight], dtype: torch.dtype) -> bool:
    """Whether this torch build and processor multiply by it, found by trying: the operators are private to torch."""
    x = torch.ones(2, 64, dtype=dtype)
    try:
        return torch.equal(packed(torch.eye(64, dtype=dtype)).multiply(x, None, None, None), x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
