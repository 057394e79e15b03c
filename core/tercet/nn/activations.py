"""Activations under the names that checkpoints use for them.

`gelu` is 0.5 x (1 + erf(x / √2)); `gelu_new` and `gelu_pytorch_tanh` are the tanh form. They are not interchangeable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.errors import UnsupportedModelError

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}

# The same, written over what they are given: for a product's own result, which then needs no second buffer.
IN_PLACE: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "gelu": torch.ops.aten.gelu_,
    "gelu_tanh": partial(torch.ops.aten.gelu_, approximate="tanh"),
    "relu": torch.relu_,
    "silu": partial(F.silu, inplace=True),
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
}

_ALIASES = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
    "swiglu": "silu",
    "geglu": "gelu",
    "identity": None,
    "linear": None,
}


def finish(y: Tensor, activation: str | None, residual: Tensor | None) -> Tensor:
    """Return activation(y) + residual, written into y."""
    y = IN_PLACE[activation](y)
    return y if residual is None else y.add_(residual)


def activated(x: Tensor, activation: str | None) -> Tensor:
    """Return activation(x), computed in float64.

    So a number comes out the same wherever it stands: in float32 torch has one way for whole vectors and another for
    what is left over.
    """
    return ACTIVATIONS[activation](x.double()).to(x.dtype)


def activation_name(name: str) -> str | None:
    """Return the key into `ACTIVATIONS` for a checkpoint's name, a torch class path such as
    `torch.nn.modules.activation.Tanh` included.

    Raises:
        UnsupportedModelError: no such activation is known.
    """  # noqa: D205
    short = name.rsplit(".", 1)[-1].lower()
    if short in _ALIASES:
        return _ALIASES[short]
    if short not in ACTIVATIONS:
        known = ", ".join(sorted(filter(None, {*ACTIVATIONS, *_ALIASES})))
        raise UnsupportedModelError(f"activation {name!r} is not known; known are {known}")
    return short
