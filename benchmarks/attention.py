"""Claim: on a CPU, attention over packed sequences by our compiled kernel takes less time than torch's own.

One layer of all-MiniLM-L6-v2's shape (12 heads of 32) and of BERT-base's (12 of 64), about 1,024 tokens in sequences of
one length, on one core. Torch is given what suits it best: equal sequences as one dense block, no mask, nothing padded.

    python benchmarks/attention.py [--rounds 30]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from facts import facts

from tercet.nn.attention import attention
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.team import compute_with

HEADS, TOKENS = 12, 1024
DIMS, LENGTHS = (32, 64), (8, 12, 16, 24, 32, 64, 100, 128, 256, 512)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    compute_with(1)
    print(f"{'':10}{'d':>4}{'tokens':>8}{'tercet':>9}{'torch':>9}  µs a token{'ratio':>9}")
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            for dims in DIMS:
                for length in LENGTHS:
                    ours, theirs = measure(dtype, dims, length, rounds)
                    name = str(dtype).removeprefix("torch.")
                    print(f"{name:10}{dims:4}{length:8}{ours:9.2f}{theirs:9.2f}{theirs / ours:19.2f}×")
    print(facts(["tercet", "torch", "llvmlite"]))
    return 0


def measure(dtype: torch.dtype, dims: int, length: int, rounds: int) -> tuple[float, float]:
    """Return the microseconds a token that each takes, medians of interleaved rounds."""
    count = max(1, TOKENS // length)
    tokens = count * length
    product = torch.randn(tokens, 3 * HEADS, dims).to(dtype)
    q, k, v = product.split(HEADS, 1)
    batch = PackedBatch.of([TokenSequence(np.zeros(length, np.int64))] * count)
    blocks = [x.view(count, length, HEADS, dims).transpose(1, 2) for x in (q, k, v)]

    def dense() -> Any:
        return F.scaled_dot_product_attention(*blocks).transpose(1, 2).reshape(tokens, -1)

    def packed() -> Any:
        return attention(q, k, v, batch)

    difference = (packed().float() - dense().float()).abs().max()
    assert difference <= (1e-5 if dtype == torch.float32 else 5e-2), f"they differ by {difference}"
    taken = [(seconds(packed), seconds(dense)) for _ in range(rounds)]
    ours, theirs = (median(each) / tokens * 1e6 for each in zip(*taken, strict=True))
    return ours, theirs


def seconds(call: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
