"""Claim: on a GPU bulk encoding in bfloat16 reaches 60 % of the GEMM rate for base and large models.

The rate is that of the layers' own products, one after the other on weights of their own, in a process of its own that
takes turns with the encoding: with four row counts, the fastest of a round counting. What encoding is counted to do is
as in gemm.py.

    python benchmarks/gpu_gemm.py [--model base] [--rounds 5] [--texts 20000] [--rows 4096]
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gemm
import gpu
import numpy as np
from corpus import mixed_texts
from drawn import checkpoint
from harness import Contender, interleave, totals
from outcome import Row

PEER = "the GEMM alone"
# Texts for about a second, and products for about as long in all row counts together.
LAYERS = {
    "base": replace(gemm.LAYERS["base"], texts=20000, passes=32, bar=0.6),
    "large": replace(gemm.LAYERS["large"], texts=5000, passes=8, bar=0.6),
}


class Products:
    """The layers' products; it reads no texts, and its answers are each round's rates, one for each row count."""

    def __init__(self, asked: Namespace) -> None:
        self.layers, self.device = LAYERS[asked.model], asked.device
        self.rows = row_counts(asked)
        self.rates: list[list[float]] = []

    def load(self) -> None:
        import torch

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=self.device, dtype=torch.bfloat16)

        self.inputs = {width: drawn(self.rows[-1], width) for width, _ in self.layers.shapes}
        self.weights = [(width, drawn(out, width), drawn(out)) for width, out in self.layers.shapes]
        self.run([])
        self.rates.clear()

    def run(self, texts: Sequence[str]) -> None:
        self.rates.append([self._rate(rows) for rows in self.rows])

    def answers(self, texts: Sequence[str]) -> Any:
        return np.array(self.rates)

    def _rate(self, rows: int) -> float:
        """Return the operations a second with so many rows, of which any row count has as many in all."""
        passes = self.layers.passes * self.rows[-1] // rows
        inputs = {width: tensor[:rows] for width, tensor in self.inputs.items()}
        gpu.synchronize(self.device)
        start = time.perf_counter()
        for _ in range(passes):
            self._pass(inputs)
        gpu.synchronize(self.device)
        return passes * self.layers.products(rows) / (time.perf_counter() - start)

    def _pass(self, inputs: Mapping[int, Any]) -> None:
        from torch.nn import functional

        for width, weight, bias in self.weights:
            functional.linear(inputs[width], weight, bias)


CONTENDERS: dict[str, Callable[[Namespace], Contender]] = {
    "tercet": lambda asked: gemm.Encoding(asked.model, asked.device, gpu.PRECISION),
    "gemm": Products,
}


def row_counts(asked: Namespace) -> list[int]:
    """Return how many rows the products are tried with: what is asked for, and 2, 4 and 8 times that."""
    return [asked.rows * 2**i for i in range(4)]


def measure(name: str, asked: Namespace) -> Iterator[Row]:
    """Yield the row of one model."""
    layers = LAYERS[name]
    checkpoint(layers.model)  # built before anything is timed
    texts = mixed_texts(asked.texts or layers.texts)
    with gpu.processes(__file__, CONTENDERS, name) as children:
        seconds = totals(interleave(children, [texts], asked.rounds))["tercet"]
        work = layers.encoding(children["tercet"].answers(texts))
        rates = np.array(children["gemm"].answers([])) / 1e12
    for rows, middle in zip(row_counts(asked), np.median(rates, axis=0), strict=True):
        print(f"{name}: products of {rows:6,} rows {middle:8.1f} TFLOP/s")
    print(f"{name}: {len(texts) / np.median(seconds):,.0f} texts/s of {work / len(texts) / 1e9:.1f} GFLOP each")
    ours, theirs = [work / s / 1e12 for s in seconds], rates.max(axis=1).tolist()
    yield gemm.share(name, PEER, ours, theirs, "TFLOP/s", layers.bar)


if __name__ == "__main__":
    raise SystemExit(gpu.main(__doc__, CONTENDERS, LAYERS, measure, ("tercet", "torch"), texts=0, rows=4096))
