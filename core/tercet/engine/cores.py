"""Cores: with how many of them a thread of the engine computes."""

from __future__ import annotations

from functools import cache

import torch

from tercet.nn.linear import Linear, prepare
from tercet.nn.model import Model
from tercet.nn.team import compute_with

# Weights that a token is multiplied with, from which on a batch is given all cores: a line drawn between MiniLM's
# 10 million and BERT-base's 85, and not measured.
_WIDE_FROM = 40_000_000
# Below so many, a batch is taken to be over before a second core could be of use: chosen, not measured.
_SHARED_FROM = 1_000_000
# (rows, in, out) of products whose rounding is compared: where rows are few, long sums may be split.
_PROBED = ((8, 384, 1152), (12, 384, 384), (12, 1536, 384), (44, 1536, 384), (200, 384, 1536), (700, 1536, 384))


def is_wide(model: Model) -> bool:
    """Whether each of the model's batches gets all cores, and not only one that leaves nothing waiting."""
    return model.multiplied_weights >= _WIDE_FROM


def may_share(model: Model, cores: int) -> bool:
    """Whether a batch of a small model may get all cores while it is alone: if it gains, and the bytes stay the same.

    A text must get the same bytes whatever else is under way. Call it on the one thread that may have all cores.
    """
    return gains(model) and rounds_alike(cores)


def gains(model: Model) -> bool:
    """Whether a batch takes long enough for a second core to be of use."""
    return model.multiplied_weights >= _SHARED_FROM


@cache
def rounds_alike(cores: int) -> bool:
    """Whether this processor's products in float32 come out the same to the last bit on one core and on so many.

    What cannot be tried, for lack of memory, is not relied on.
    """
    draw = torch.Generator().manual_seed(0)
    try:
        return all(_rounds_alike(*shape, cores, draw) for shape in _PROBED)
    except (RuntimeError, MemoryError):
        return False


def _rounds_alike(rows: int, width: int, out: int, cores: int, draw: torch.Generator) -> bool:
    product = Linear(width, out, bias=False)
    torch.nn.init.normal_(product.weight, generator=draw)  # type: ignore[arg-type]
    prepare(product, cores)
    x = torch.randn(rows, width, generator=draw)
    made = []
    for count in (1, cores):
        compute_with(count)
        # An activation too: what a core has left over at the end of its share may be computed otherwise.
        made.append(product(x, activation="gelu"))
    return torch.equal(*made)
