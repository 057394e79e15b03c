"""Our attention kernel for a GPU, interpreted: every query sees its own sequence's keys, whatever lies beside it.

On a GPU `test_attention.py` asks the same of the compiled one.
"""

from __future__ import annotations

from typing import Any

import torch

from nn.test_attention import batch_of, draw, naive
from support.interpreted import interpret, needs_triton
from tercet.nn.recordings import RoomBatch
from tercet.nn.room import Arrays, Room
from tercet.nn.transfer import upload
from tercet.nn.varlen import short_attention, varlen_kernel

LENGTHS = (1, 2, 70, 33, 130)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "causal": {"causal": True},
    "window": {"window": (9, 9)},
    "one side": {"window": (20, 0)},
    "grouped": {"kv_heads": 2},
    "attended": {"attended": (1, 1, 50, 33, 129)},
}


def check(name: str) -> None:
    options = dict(OPTIONS[name])
    kv_heads, attended = options.pop("kv_heads", 4), options.pop("attended", None)
    host = batch_of(LENGTHS, attended)
    q, k, v = draw(host, kv_heads=kv_heads)
    expected = naive(q, k, v, host, **options)
    arrays = Arrays(host.cu_seqlens.numpy(), host.input_ids.numpy(), host.positions.numpy())
    room = Room.holding(len(q), len(LENGTHS), max(LENGTHS))
    assert room is not None
    laid = room.laid(arrays.for_attention(host.attended or host.lengths))
    block = upload(laid.present, room.layout, torch.device("cpu"))
    window = (options.get("window", (-1, -1))[0], 0) if options.get("causal") else options.get("window", (-1, -1))
    scale = options.get("scale", q.shape[-1] ** -0.5)
    ours = short_attention(q, k, v, RoomBatch.over(block, room), scale, window).flatten(1)
    assert (ours.double() - expected).abs().max() <= 1e-5, name


@needs_triton
def test_the_interpreted_kernel_agrees() -> None:
    interpret("from nn.test_varlen import OPTIONS, check; [check(name) for name in OPTIONS]")


def test_a_cpu_has_no_varlen_kernel() -> None:
    assert varlen_kernel(torch.device("cpu"), torch.bfloat16, 64) is None
