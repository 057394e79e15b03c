"""Claim: a float32 product with a weight by rows, and by its panels, takes about the time of oneDNN's packed product.

Where the processor has tiles, a product in them is measured too.

The products of all-MiniLM-L6-v2's and BERT-base's layers, with the rows of a lone query and more, on all cores. Each
way has copies of the weight, 48 MB for MiniLM's and 340 for base's and so more than a cache holds, and takes them one
after another.

    python benchmarks/products.py [--rounds 15] [--rows 2 13 160 512]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from attention import seconds
from facts import facts

from tercet.nn.by_rows import RowWeight
from tercet.nn.by_tiles import TileWeight
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.packed import OneDnnWeight, PackedWeight
from tercet.nn.team import compute_with

# In, out, and bytes of all copies.
SHAPES = [(384, 384, 48e6), (384, 1152, 48e6), (384, 1536, 48e6), (1536, 384, 48e6)]
SHAPES += [(768, 768, 340e6), (768, 3072, 340e6), (3072, 768, 340e6)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 13, 160, 512])
    asked = parser.parse_args()
    compute_with(torch.get_num_threads())
    names = ["oneDNN", "by rows", "panels", *(["tiles"] if has_tiles() else [])]
    print(f"{'rows':>5}{'in':>6}{'out':>6}{''.join(f'{name:>10}' for name in names)}  µs{'ratios':>11}")
    with torch.inference_mode():
        for rows in asked.rows:
            for depth, width, held in SHAPES:
                theirs, *ours = measure(rows, depth, width, max(1, int(held / (4 * depth * width))), asked.rounds)
                times = "".join(f"{time:10.1f}" for time in (theirs, *ours))
                ratios = "".join(f"{theirs / time:6.2f}×" for time in ours)
                print(f"{rows:5}{depth:6}{width:6}{times}    {ratios}", flush=True)
    print(facts(["tercet", "torch", "llvmlite"]))
    return 0


def measure(rows: int, depth: int, width: int, copies: int, rounds: int) -> list[float]:
    """Return the microseconds a product by oneDNN, by rows, by panels and in tiles, medians of interleaved rounds."""
    x, bias = torch.randn(rows, depth), torch.randn(width)
    weights = [torch.randn(width, depth) / depth**0.5 for _ in range(copies)]
    ways: list[Sequence[PackedWeight]] = [list(map(OneDnnWeight, weights)), list(map(RowWeight, weights))]
    ways += [laid(kind, weights) for kind in (RowWeight, *([TileWeight] if has_tiles() else []))]
    theirs, *ours = (way[0].multiply(x, bias, None, None) for way in ways)
    assert torch.equal(*ours[:2]) and all(torch.allclose(theirs, y, atol=1e-5) for y in ours)
    calls = [_all(way, x, bias) for way in ways]
    taken = [[seconds(call) for call in calls] for _ in range(rounds)]
    return [median(each) / copies * 1e6 for each in zip(*taken, strict=True)]


def laid(kind: type[RowWeight], weights: Sequence[torch.Tensor]) -> list[RowWeight]:
    """Return the weights in panels."""
    made = [kind(weight) for weight in weights]
    for weight in made:
        weight.lay()
    return made


def _all(weights: Sequence[PackedWeight], x: torch.Tensor, bias: torch.Tensor) -> Callable[[], Any]:
    return lambda: [weight.multiply(x, bias, None, None) for weight in weights]


if __name__ == "__main__":
    raise SystemExit(main())
