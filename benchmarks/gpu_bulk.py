"""Claim: on a GPU mixed-length bulk runs in bfloat16 at 2.5 times sentence-transformers' rate, also in bfloat16.

The models have the shapes of published ones and drawn weights, which changes no speed. Both contenders are on the same
GPU, each in a process of its own, rounds interleaved, and must agree before they are timed. sentence-transformers has
SDPA attention, sorts by length, and has the fastest of four batch sizes, found by a trial before the rounds.

    python benchmarks/gpu_bulk.py [--model bge-base] [--rounds 5] [--texts 4000] [--queries 100]
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import gpu
from agreement import check
from corpus import short_queries
from drawn import checkpoint
from harness import Contender, interleave, timed
from outcome import Row

from models import PACKAGES, PEER, SentenceTransformers, Tercet, calls, row, sample, show

BAR = 2.5
SIZES = (32, 64, 128, 256)
_TRIAL = 1000  # texts, or lists; among few, large batches would be padded more than in a round


@dataclass(frozen=True, slots=True)
class Bulk:
    """What is measured of a model.

    Attributes:
        texts: of a round, or lists. bar: of the ratio. query: whether a lone query is timed too.
        close: the least cosine of contenders that agree.
    """

    texts: int
    bar: float | None = BAR
    query: bool = False
    close: float = gpu.CLOSE


MODELS = {
    "minilm": Bulk(4000, query=True),
    "bge-base": Bulk(4000, query=True),
    "bge-m3": Bulk(1500),
    # In float32 the two agree to 1.00000; bfloat16 alone takes either to 0.980 and 0.983 of that, on a CPU.
    "modernbert-base": Bulk(1500, close=0.95),
    "splade": Bulk(1500, bar=None),
    "ms-marco-minilm": Bulk(40, bar=None),
}


class BestBatches(SentenceTransformers):
    """sentence-transformers in the batch size that suits it best, waited for where it leaves its answers on the GPU."""

    def __init__(self, asked: Namespace) -> None:
        super().__init__(asked.model, asked.device, gpu.PRECISION)
        self.trial = calls(asked.model, min(amount(asked.model, asked), _TRIAL))

    def load(self) -> None:
        super().load()
        seconds = {size: self._seconds(size) for size in SIZES}
        self.batch_size = min(seconds, key=lambda size: seconds[size])
        self.about = f"batches of {self.batch_size}"

    def run(self, texts: Sequence[str]) -> Any:
        found = super().run(texts)
        gpu.synchronize(self.device)
        return found

    def _seconds(self, size: int) -> float:
        """Return how long the trial takes in batches of so many, infinity where they do not fit."""
        import torch

        self.batch_size = size
        try:
            self.run(self.trial[0][:size])  # so that what is done once for a size is not timed
            return sum(timed(self, texts) for texts in self.trial)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return float("inf")


CONTENDERS: dict[str, Callable[[Namespace], Contender]] = {
    "tercet": lambda asked: Tercet(asked.model, asked.device, gpu.PRECISION),
    PEER: BestBatches,
}


def amount(name: str, asked: Namespace) -> int:
    """Return how many texts, or lists, make a round."""
    return int(asked.texts or MODELS[name].texts)


def measure(name: str, asked: Namespace) -> Iterator[Row]:
    """Yield the row of one model in bulk and, where it has one, that of a lone query."""
    checkpoint(name)  # built before anything is timed
    bulk, lone = calls(name, amount(name, asked)), [[query] for query in short_queries(asked.queries)]
    with gpu.processes(__file__, CONTENDERS, name) as children:
        print(f"{name}: {PEER} has {children[PEER].about}")
        cosine = check(children, CONTENDERS, sample(name, bulk), MODELS[name].close)[PEER]
        taken = interleave(children, bulk, asked.rounds)
        queries = interleave(children, lone, asked.rounds) if MODELS[name].query else {}
    show(name, children, taken)
    note = f"{children[PEER].about}, least cosine {cosine:.4f}"
    yield row(name, bulk, taken, MODELS[name].bar, note)
    if queries:
        ours, theirs = ([median(round_) for round_ in rounds] for rounds in queries.values())
        yield Row.of_times(f"{name}, one short query, p50", PEER, ours, theirs)


if __name__ == "__main__":
    raise SystemExit(gpu.main(__doc__, CONTENDERS, MODELS, measure, PACKAGES, texts=0, queries=100))
