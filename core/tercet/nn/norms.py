"""Norms over the last dimension, computed in float32 inside.

On a GPU in half precision each is one pass over memory, and so they are in float32 on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn import compiled_rows, fused_rows


class LayerNorm(nn.LayerNorm):
    """(x − mean) / std · weight + bias; Ba et al. 2016, arXiv:1607.06450."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (T, H), same dtype."""
        if fused_rows.fuses(x):
            return fused_rows.layer_norm(x, None, self.weight, self.bias, self.eps)
        if compiled_rows.fuses(x):
            return compiled_rows.layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)

    def of_sum(self, x: Tensor, product: Callable[..., Tensor]) -> Tensor:
        """Return norm(x + product()); `product` takes what to add as its `residual`.

        A processor's kernel adds it for nothing as it writes the product, and a GPU's norm as it reads that.
        """
        if fused_rows.fuses(x):
            return fused_rows.layer_norm(product(), x, self.weight, self.bias, self.eps)
        out: Tensor = self(product(residual=x))
        return out


class RMSNorm(nn.Module):
    """x / rms(x) · (weight + offset), in float32 inside; Zhang & Sennrich 2019, arXiv:1910.07467.

    Gemma stores weights around zero and passes `offset=1`.
    """

    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (T, H) or (T, N, d), same dtype."""
        if fused_rows.fuses(x):
            return fused_rows.rms_norm(x, self.weight, self.eps, self.offset)
        if (normed := compiled_rows.rms_norm(x, self.weight, self.eps, self.offset)) is not None:
            return normed
        weight = self.weight.float() + self.offset
        return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(x.dtype)

    def of_sum(self, x: Tensor, product: Callable[..., Tensor]) -> Tensor:
        """Return norm(x + product()); `product` takes what to add as its `residual`."""
        out: Tensor = self(product(residual=x))
        return out
