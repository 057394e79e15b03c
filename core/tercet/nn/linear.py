"""Matrix products: the only place that names the kernels behind them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn.activations import IN_PLACE
from tercet.nn.team import compute_with

# oneDNN's own name and algorithm for each activation that it can fuse into the product.
_FUSED = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "tanh": ("tanh", ""),
}
if "AVX512" not in torch.backends.cpu.get_cpu_capability():
    # oneDNN reads erf off a table, slowly without AVX-512: its GELU costs a quarter of the product, torch's a tenth.
    del _FUSED["gelu"]
_PACKED_ROWS = 512  # oneDNN chooses a weight layout for a row count; one that suits bulk also serves short queries


class Linear(nn.Module):
    """y = activation(x Wᵀ + b) + residual, by the fastest exact kernel of the device.

    After `prepare()` on a CPU with oneDNN the weight lives in oneDNN's blocked layout only: 2.3 times the rate of
    `F.linear` in float32 on AMD, the same answer to 4e-6. The layout is opaque, so `weight` is then None.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.in_features, self.out_features = in_features, out_features
        self._packed: Tensor | None = None

    def prepare(self) -> None:
        """Move the weight into the layout that this device's kernel reads; call once, after loading."""
        if self.weight is not None and self.weight.device.type == "cpu" and can_pack(self.weight.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), _PACKED_ROWS)
            self.weight = None

    def forward(self, x: Tensor, activation: str | None = None, residual: Tensor | None = None) -> Tensor:
        """Return (T, out_features) for x (T, in_features); `activation` is a key of `activations.ACTIVATIONS`."""
        if self._packed is not None:
            return self._forward_packed(x, activation, residual)
        assert self.weight is not None
        y = F.linear(x, self.weight, self.bias)
        y = IN_PLACE[activation](y)
        return y if residual is None else y.add_(residual)

    def _forward_packed(self, x: Tensor, activation: str | None, residual: Tensor | None) -> Tensor:
        if len(x) == 1:  # oneDNN has another kernel for a single row, which rounds differently than the one for many
            two = None if residual is None else torch.cat((residual, residual))
            return self._forward_packed(torch.cat((x, x)), activation, two)[:1]
        linear = torch.ops.mkldnn._linear_pointwise
        if residual is not None and activation is None:
            return linear.binary(x, residual, self._packed, self.bias, "add")  # type: ignore[no-any-return]
        attribute, algorithm = _FUSED.get(activation, _FUSED[None])
        y: Tensor = linear(x, self._packed, self.bias, attribute, [], algorithm)
        if activation not in _FUSED:
            y = IN_PLACE[activation](y)
        return y if residual is None else y.add_(residual)


def is_packed(module: nn.Module) -> bool:
    """Whether a product below `module` runs on a packed weight."""
    return any(isinstance(part, Linear) and part.weight is None for part in module.modules())


def compiled_rows(rows: int) -> int:
    """Return how many rows products on packed weights should be given for `rows`: at most an eighth more.

    oneDNN compiles and keeps a kernel for each row count that it meets, and the result buffers of ever new sizes leave
    holes in the heap: measured, 1.1 GB after a hundred row counts of one product. So there are about 56 counts up to
    2,048 rows.
    """
    step = 1 << max(2, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def prepare(module: nn.Module, cores: int = 1) -> None:
    """Put every `Linear` below `module` into its device's layout, so many of them side by side.

    Measured on two AVX2 cores: BERT-base's 340 MB in 110 to 150 ms instead of 290 to 335 on one, MiniLM's 42 in 26
    instead of 39.
    """
    products = [part for part in module.modules() if isinstance(part, Linear)]
    with ThreadPoolExecutor(cores, "tercet-layout", compute_with, (1,)) as pool:
        list(pool.map(Linear.prepare, products))


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch build and processor multiply by oneDNN-packed weights of `dtype`, found by trying.

    The operators are private to torch, so a version without them, or a processor that refuses, falls back to
    `F.linear`; `kernel_name` reports which of the two runs.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch._C._has_mkldnn:
        return False
    x, weight = torch.ones(2, 16, dtype=dtype), torch.eye(16, dtype=dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""), x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def kernel_name(device: torch.device, dtype: torch.dtype) -> str:
    """Return what computes matrix products there: "onednn-packed", "cublas" or "torch"."""
    if device.type == "cuda":
        return "cublas"
    return "onednn-packed" if can_pack(dtype) else "torch"
