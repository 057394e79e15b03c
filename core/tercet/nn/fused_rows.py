"""Row by row on a GPU: norms, rotations and gates in one pass over memory each, in half precision.

By torch's own operations each is three to seven passes. Kernels are Triton's, which comes with torch for CUDA; they
compute in float32 and round once. Where they do not run, callers use torch.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Lookup = tuple[Tensor, Tensor]  # which row (T,) int64 of a table (n, H) is each token's
_GATES = {"gelu": 0, "gelu_tanh": 1, "silu": 2}


def fuses(x: Tensor) -> bool:
    """Whether the kernels here take x: on a GPU, in half precision."""
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and has_triton()


def embed(ids: Tensor, words: Tensor, places: Lookup | None, kinds: Lookup | None) -> Tensor:
    """Return the sum of the rows that each of T tokens has in the tables, (T, H)."""
    width = words.shape[1]
    out = torch.empty(len(ids), width, dtype=words.dtype, device=words.device)
    kernels().embed[(len(ids),)](
        ids, words, *(places or (ids, words)), *(kinds or (ids, words)), out, width,
        PLACED=places is not None, TYPED=kinds is not None, **_block(width),
    )  # fmt: skip
    return out


def layer_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Return LayerNorm(x + residual), (T, H) as both are."""
    out = torch.empty_like(x)
    rows, width = x.shape
    kernels().layer_norm[(rows,)](
        x, x if residual is None else residual, weight, weight if bias is None else bias, out, width, eps,
        ADDS=residual is not None, SHIFTS=bias is not None, **_block(width),
    )  # fmt: skip
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    """Return x / rms(x) · (weight + offset) over the last dimension of x (T, H) or of a view (T, N, d)."""
    heads = x if x.ndim == 3 else x[:, None]
    out = torch.empty(heads.shape, dtype=x.dtype, device=x.device)
    tokens, count, width = heads.shape
    kernels().rms_norm[(tokens * count,)](
        heads, heads.stride(0), heads.stride(1), weight, out, count, width, eps, offset, **_block(width)
    )
    return out.view(x.shape)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x (T, N, d), a view too, with its first dimensions rotated; cos and sin are (T, 1, at most d)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tokens, heads, width = x.shape
    next_power_of_2 = kernels().triton.next_power_of_2
    kernels().rotate[(tokens,)](
        x, x.stride(0), x.stride(1), cos, sin, out, heads, width, cos.shape[-1],
        HEADS=next_power_of_2(heads), WIDTH=next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return out


def gate(x: Tensor, activation: str | None, gate_first: bool) -> Tensor | None:
    """Return act(gate) · up for x (T, 2 I), or None where the activation is none of those here."""
    if activation not in _GATES:
        return None
    rows, width = x.shape[0], x.shape[1] // 2
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    block = 1024
    kernels().gate[(rows, -(-width // block))](
        x, out, width, 0 if gate_first else width, width if gate_first else 0, ACT=_GATES[activation], BLOCK=block
    )
    return out


def _block(width: int) -> dict[str, int]:
    block = kernels().triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(8, max(1, block // 256))}


@cache
def has_triton() -> bool:
    """Whether Triton comes with this torch, as it does for CUDA, and its kernels run: they need a C compiler too."""
    if find_spec("triton") is None:
        return False
    try:
        gate(torch.zeros(1, 2, dtype=torch.bfloat16, device="cuda"), "silu", True)
    except Exception as error:  # whatever Triton, the compiler or the driver say
        log.warning("Triton's kernels do not run here, torch's operations stand in and are slower: %s", error)
        return False
    return True


@cache
def kernels() -> Any:
    """Return the module of Triton's kernels."""
    from tercet.nn import triton_kernels

    return triton_kernels
