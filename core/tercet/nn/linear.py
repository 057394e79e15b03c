"""Matrix products, by the fastest exact kernel of the device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn.activations import finish
from tercet.nn.by_rows import RowWeight
from tercet.nn.packed import BYTES_A_ROUNDED_WEIGHT, IN_INT8, PackedWeight, is_rounded, packing
from tercet.nn.team import compute_with

_SMALL = 1 << 15  # weights


class Linear(nn.Module):
    """y = activation(x Wᵀ + b) + residual.

    After `prepare` on a CPU the weight belongs to the processor's kernel (`nn/packed.py`), and `weight` is None.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.in_features, self.out_features = in_features, out_features
        self.packed: PackedWeight | None = None
        self._parts: Sequence[Tensor] = ()

    @property
    def coarse(self) -> bool:
        """Whether its products are in int8, and bfloat16 holds all that they are worth."""
        return isinstance(self.packed, IN_INT8)

    def forward(self, x: Tensor, activation: str | None = None, residual: Tensor | None = None) -> Tensor:
        """Return (T, out_features) for x (T, in_features); `activation` is a key of `activations.ACTIVATIONS`."""
        if self.packed is not None:
            return self._forward_packed(self.packed, x, activation, residual)
        assert self.weight is not None
        if x.is_cuda and x.ndim == 2:
            return _by_cublas(x, self.weight, self.bias, activation, residual)
        if self.weight.dtype == torch.float32 and self.weight.numel() <= _SMALL:
            return _in_float64(x, self.weight, self.bias, activation, residual)
        return finish(F.linear(x, self.weight, self.bias), activation, residual)

    def _forward_packed(
        self, packed: PackedWeight, x: Tensor, activation: str | None, residual: Tensor | None
    ) -> Tensor:
        if len(x) > 1 or packed.fineness is None:
            return packed.multiply(x, self.bias, activation, residual)
        # Libraries have another kernel for a single row, which rounds differently than the one for many.
        two = None if residual is None else torch.cat((residual, residual))
        return packed.multiply(torch.cat((x, x)), self.bias, activation, two)[:1]

    def take(self, parts: Sequence[Tensor]) -> None:
        """Hold a weight whose rows lie in several tensors, one after another; `pack` comes next."""
        self.weight, self._parts = None, parts

    def pack(self, dtype: torch.dtype | None = None, only: type[PackedWeight] | None = None) -> None:
        """Give the weight to what multiplies by it fastest on this device, in its own type or rounded if it fits.

        `only` leaves it as it is if that is something else.
        """
        rounds = dtype is not None and is_rounded(dtype)
        if self._parts:
            parts, self._parts = self._parts, ()
            layouts = {packing(part.dtype, part) for part in parts}
            if not rounds and len(layouts) == 1 and (layout := layouts.pop()) and issubclass(layout, RowWeight):
                self.packed = layout(*parts)
                return
            self.weight = nn.Parameter(torch.cat(list(parts)), requires_grad=False)
        if self.weight is None or self.weight.device.type != "cpu":
            return
        rounded = packing(dtype, self.weight) if rounds and dtype is not None else None
        layout = rounded or packing(self.weight.dtype, self.weight)
        if layout is not None and (only is None or issubclass(layout, only)):
            self.packed = layout(self.weight.detach())
            self.weight = None


def _by_cublas(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None
) -> Tensor:
    """Return the product with what cuBLAS can do besides while it writes it.

    Its GELU is the tanh form; in bfloat16 that comes no less near to float32 than a product that is rounded before its
    exact GELU (docs/adr/0013-on-a-gpu.md), so it stands for both there.
    """
    gelu = activation == "gelu_tanh" or (activation == "gelu" and x.dtype == torch.bfloat16)
    if bias is not None and (gelu or activation == "relu"):
        return finish(torch._addmm_activation(bias, x, weight.t(), use_gelu=gelu), None, residual)
    if bias is None and activation is None and residual is not None:
        return torch.addmm(residual, x, weight.t())
    return finish(F.linear(x, weight, bias), activation, residual)


def _in_float64(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None
) -> Tensor:
    """Return the product in the type of x; a row is the same among any others, by whose number libraries round.

    For what is too small for our kernel, such as the last product of a classifier.
    """
    y = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    return finish(y, activation, residual).to(x.dtype)


def prepare(
    module: nn.Module,
    cores: int = 1,
    dtype: torch.dtype | None = None,
    only: type[PackedWeight] | None = None,
) -> None:
    """Put every `Linear` below `module` into its device's layout, with so many cores; call once, after loading.

    Weights are rounded where `dtype` says so, and stay as they are where the layout is another than `only`, if given.

    Measured on two AVX-512 cores: BERT-base's 340 MB into oneDNN's layout in 64 to 82 ms instead of 138 to 184 on one.
    A thread of its own does it, since it keeps the helpers that it computes with (`nn/team.py`).
    """
    products = [part for part in module.modules() if isinstance(part, Linear)]
    with ThreadPoolExecutor(1, "tercet-layout", compute_with, (cores,)) as pool:
        list(pool.map(partial(Linear.pack, dtype=dtype, only=only), products))


def rounding_saves(module: nn.Module, dtype: torch.dtype) -> int:
    """Return how many bytes fewer the float32 products below `module` take where they are rounded to `dtype`."""
    products = (part for part in module.modules() if isinstance(part, Linear))
    weights = [part.weight for part in products if part.weight is not None and packing(dtype, part.weight)]
    return sum(weight.nbytes - BYTES_A_ROUNDED_WEIGHT * weight.numel() for weight in weights)


def layout_of(module: nn.Module) -> type[PackedWeight] | None:
    """Return the layout of the products below `module`, or None if they run by rows."""
    packed = (part.packed for part in module.modules() if isinstance(part, Linear))
    return next((type(weight) for weight in packed if weight is not None), None)


def even_rows(rows: int, layout: type[PackedWeight]) -> int:
    """Return how many rows packed products should be given for `rows`: at most an eighth more.

    Layouts other than ours gain by few row counts: up to 2,048 rows, oneDNN is given about 56.
    """
    if layout.fineness is None:
        return rows
    step = 1 << max(2, (rows - 1).bit_length() - 1 - layout.fineness)
    return -(-rows // step) * step


def kernel_name(device: torch.device, dtype: torch.dtype) -> str:
    """Return what computes matrix products there: the name of a `PackedWeight`, "cublas" or "torch"."""
    if device.type == "cuda":
        return "cublas"
    layout = packing(dtype)
    return layout.name if layout else "torch"
