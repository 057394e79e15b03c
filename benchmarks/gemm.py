"""Claim: bulk encoding in float32 reaches 75, 82 and 87 % of the GEMM rate for MiniLM, base and large models.

The rate is that of the layers' own products with 1,024 rows on packed weights, in processes of their own that take
turns with the encoding: once with all cores on each product and once with a core for each, whichever is faster. The
work of encoding is counted as 2 × weights × tokens of the layers' products and 4 · L² · H of attention a layer;
embeddings, norms, activations, softmax and tokenising count as nothing.

    python benchmarks/gemm.py [--model base] [--rounds 5] [--texts 60]
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import by_model
import encode
import numpy as np
from corpus import mixed_texts
from drawn import checkpoint
from harness import Contender, interleave, started, totals
from numpy.typing import ArrayLike
from outcome import Row

ROWS = 1024
PEER = "the packed GEMM alone"


@dataclass(frozen=True, slots=True)
class Layers:
    """A BERT's layers: its width H, products of 12 H² weights each, and which model has them.

    Attributes:
        texts: a round's. passes: how often a round goes through all products. bar: the share to reach.
    """

    model: str
    hidden: int
    count: int
    texts: int
    passes: int
    bar: float

    def encoding(self, tokens: ArrayLike) -> float:
        """Return the floating-point operations of texts of so many tokens each."""
        lengths = np.asarray(tokens, np.float64)
        products, attention = 24 * self.hidden**2 * lengths.sum(), 4 * self.hidden * (lengths**2).sum()
        return float(self.count * (products + attention))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """What goes in and out of each product, in their order."""
        h = self.hidden
        return [(h, 3 * h), (h, h), (h, 4 * h), (4 * h, h)] * self.count

    def products(self, rows: int) -> float:
        """Return the operations of going through all products once, with so many rows."""
        return float(sum(2 * rows * width * out for width, out in self.shapes))


LAYERS = {
    "MiniLM": Layers(encode.MODEL, 384, 6, 400, 16, 0.75),
    "base": Layers("bge-base", 768, 12, 60, 4, 0.82),
    "large": Layers("bge-m3", 1024, 24, 20, 2, 0.87),
}


class Encoding:
    """The engine with its defaults; its answers are how many tokens it read of each text."""

    def __init__(self, name: str, device: str = "cpu", precision: str = "float32") -> None:
        self.device, self.precision = device, precision
        model = LAYERS[name].model
        self.path = model if model == encode.MODEL else str(checkpoint(model))

    def load(self) -> None:
        from tercet import Engine

        self.engine = Engine(precision=self.precision, device=self.device, memory_budget="8GiB")
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.engine.encode(self.path, list(texts))

    def answers(self, texts: Sequence[str]) -> Any:
        return self.run(texts).tokens


class Products:
    """The layers' products one after the other, all cores on each, on weights of its own; it reads no texts."""

    workers = 1

    def __init__(self, name: str) -> None:
        self.layers = LAYERS[name]

    def load(self) -> None:
        import torch

        shapes = self.layers.shapes
        self.inputs = {width: torch.randn(ROWS, width) for width, _ in shapes}
        pack = torch.ops.mkldnn._reorder_linear_weight
        self.weights = [(width, pack(torch.randn(out, width), ROWS), torch.randn(out)) for width, out in shapes]
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> None:
        with ThreadPoolExecutor(self.workers) as threads:
            list(threads.map(self._pass, range(self.layers.passes)))

    def _pass(self, _: int) -> None:
        import torch

        if self.workers > 1:
            torch.set_num_threads(1)  # of this thread
        multiply = torch.ops.mkldnn._linear_pointwise
        for width, weight, bias in self.weights:
            multiply(self.inputs[width], weight, bias, "none", [], "")


class ProductsApart(Products):
    """The same with a thread for each core, each with products of its own."""

    workers = len(os.sched_getaffinity(0))


CONTENDERS: dict[str, Callable[[str], Contender]] = {
    "tercet": Encoding,
    "gemm": Products,
    "gemm, a core each": ProductsApart,
}


def measure(name: str, asked: Namespace) -> Row:
    """Return the row of one model."""
    layers = LAYERS[name]
    texts = mixed_texts(asked.texts or layers.texts)
    with started(__file__, CONTENDERS, ["--model", name]) as children:
        taken = totals(interleave(children, [texts], asked.rounds))
        work = layers.encoding(children["tercet"].answers(texts))
    ours = [work / s / 1e9 for s in taken["tercet"]]
    products = layers.passes * layers.products(ROWS)
    theirs = [products / min(both) / 1e9 for both in zip(taken["gemm"], taken["gemm, a core each"], strict=True)]
    return share(name, PEER, ours, theirs, "GFLOP/s", layers.bar)


def share(
    name: str, peer: str, ours: Sequence[float], theirs: Sequence[float], unit: str, bar: float, note: str = ""
) -> Row:
    """Return the row of these rates, a round each."""
    reached = median(a / b for a, b in zip(ours, theirs, strict=True))
    return Row(f"{name} in bulk, share of the GEMM rate", peer, median(ours), median(theirs), unit, reached, bar, note)


if __name__ == "__main__":
    raise SystemExit(by_model.main(__doc__, CONTENDERS, LAYERS, measure, ("tercet", "torch"), texts=0))
