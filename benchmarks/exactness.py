"""Claim: float32 products by our own kernels, in tiles too, are nearer to float64 than those of torch and oneDNN.

Random rows and weights; the mean and the greatest error of a product's numbers, whose standard deviation is 1, in units
of 10⁻⁷.

    python benchmarks/exactness.py [--rows 700] [--width 384]
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from facts import facts

from tercet.nn.by_rows import RowWeight
from tercet.nn.by_tiles import TileWeight
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.packed import OneDnnWeight

DEPTHS = (384, 768, 1536, 3072, 4096)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=700)
    parser.add_argument("--width", type=int, default=384)
    asked = parser.parse_args()
    kinds = [OneDnnWeight, RowWeight, *([TileWeight] if has_tiles() else [])]
    print(f"{'columns':>7}", *(f"{name:>14}" for name in ["torch", *(kind.name for kind in kinds)]))
    torch.manual_seed(1)
    for depth in DEPTHS:
        x, weight = torch.randn(asked.rows, depth), torch.randn(asked.width, depth) / depth**0.5
        exact = x.double() @ weight.double().T
        products = [F.linear(x, weight), *(kind(weight).multiply(x, None, None, None) for kind in kinds)]
        errors = [(product - exact).abs() * 1e7 for product in products]
        print(f"{depth:7}", *(f"{error.mean().item():8.2f}{error.max().item():6.0f}" for error in errors))
    print(facts(["tercet", "torch", "llvmlite"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
