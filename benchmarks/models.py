"""Claim: base and large models, ModernBERT, SPLADE and rerankers run at 2.2 times sentence-transformers' rate, exact.

The models have the shapes of published ones and drawn weights, which changes no speed; both contenders compute in
float32, each in a process of its own, rounds interleaved. A reranker scores lists of 50 passages, one list a call.

    python benchmarks/models.py [--model bge-base] [--rounds 5] [--texts 60]
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import by_model
import numpy as np
from agreement import TEXTS, check
from corpus import long_texts, mixed_texts, short_queries
from drawn import checkpoint
from harness import Child, Contender, interleave, percentile, started, totals
from outcome import Row
from shapes import SHAPES

BAR = 2.2
LIST = 50  # passages that a reranker scores for one query
PEER = "sentence-transformers"
MODELS = [name for name in SHAPES if name != "minilm"]  # the published MiniLM is encode.py's
PACKAGES = ("tercet", "torch", "sentence-transformers", "transformers", "tokenizers")


class Tercet:
    """The engine in process, with its defaults."""

    def __init__(self, name: str, device: str = "cpu", precision: str = "float32") -> None:
        self.kind, self.path = SHAPES[name].kind, str(checkpoint(name))
        self.device, self.precision = device, precision

    def load(self) -> None:
        from tercet import Engine

        self.engine = Engine(precision=self.precision, device=self.device, memory_budget="8GiB")
        self.run(["one", "two"])

    def run(self, texts: Sequence[str]) -> Any:
        if self.kind == "pairs":
            return self.engine.score(self.path, texts[0], list(texts[1:])).scores
        output = self.kind
        return getattr(self.engine.encode(self.path, list(texts), output_types=[output]), output)

    def answers(self, texts: Sequence[str]) -> Any:
        found = self.run(texts)
        if self.kind != "sparse":
            return found
        full = np.zeros((len(found), found.dims), np.float32)
        for row, vector in zip(full, found, strict=True):
            row[vector.indices] = vector.values
        return full


class SentenceTransformers:
    """sentence-transformers' class for the kind with its defaults: batches of 32, sorted by length.

    Long documents go one by one, which is faster there: a batch would be padded to its longest.
    """

    def __init__(self, name: str, device: str = "cpu", dtype: str = "float32") -> None:
        self.kind, self.path = SHAPES[name].kind, str(checkpoint(name))
        self.device, self.dtype = device, dtype
        self.batch_size = 1 if name.endswith("long") else 32

    def load(self) -> None:
        import sentence_transformers as st

        kinds = {"dense": st.SentenceTransformer, "sparse": st.SparseEncoder, "pairs": st.CrossEncoder}
        self.model: Any = kinds[self.kind](self.path, device=self.device, model_kwargs={"dtype": self.dtype})
        self.run(["one", "two"])

    def run(self, texts: Sequence[str]) -> Any:
        if self.kind == "pairs":
            return self.model.predict([(texts[0], text) for text in texts[1:]], batch_size=self.batch_size)
        return self.model.encode(list(texts), batch_size=self.batch_size)

    def answers(self, texts: Sequence[str]) -> Any:
        found = self.run(texts)
        return found.to_dense() if self.kind == "sparse" else found


CONTENDERS: dict[str, Callable[[str], Contender]] = {"tercet": Tercet, PEER: SentenceTransformers}


def calls(name: str, count: int) -> list[list[str]]:
    """Return what is asked in a round: all texts in one call, or so many lists, the query first."""
    if name.endswith("long"):
        return [long_texts(count)]
    if SHAPES[name].kind != "pairs":
        return [mixed_texts(count)]
    queries, passages = short_queries(count), mixed_texts(count * LIST)
    return [[query, *passages[i * LIST : (i + 1) * LIST]] for i, query in enumerate(queries)]


def sample(name: str, asked: list[list[str]]) -> list[str]:
    """Return what the contenders must agree on: a list of passages, or texts as long as the windows are wide."""
    if name.endswith("long"):
        return long_texts(3, shortest=300, longest=1200)
    return asked[0] if SHAPES[name].kind == "pairs" else TEXTS


def measure(name: str, wanted: Namespace) -> Row:
    """Return the row of one model."""
    checkpoint(name)  # built before anything is timed
    count = wanted.texts or SHAPES[name].texts
    asked = calls(name, count)
    with started(__file__, CONTENDERS, ["--model", name]) as children:
        cosine = check(children, CONTENDERS, sample(name, asked))[PEER]
        taken = interleave(children, asked, wanted.rounds)
    show(name, children, taken)
    return row(name, asked, taken, BAR, f"least cosine {cosine:.6f}")


def show(name: str, children: Mapping[str, Child], taken: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Print what each contender did by itself."""
    for contender, child in children.items():
        flat = [seconds * 1e3 for round_ in taken[contender] for seconds in round_]
        latency = f"a call p50 {median(flat):.0f} ms, p99 {percentile(flat, 0.99):.0f} ms"
        print(f"{name}: {contender:22} {latency}, load {child.load_s:.1f} s, peak {child.peak_mb:.0f} MB {child.about}")


def row(name: str, asked: list[list[str]], taken: Mapping[str, list[list[float]]], bar: float | None, note: str) -> Row:
    """Return the row of what was asked and how long it took, Tercet first."""
    ours, theirs = totals(taken).values()
    what, amount, unit = "mixed texts", sum(map(len, asked)), "texts/s"
    if name.endswith("long"):
        what = "documents of 2k to 8k tokens"
    if SHAPES[name].kind == "pairs":
        what, amount, unit = f"rerank 1 × {LIST}", len(asked), "lists/s"
    return Row.of_rates(f"{name.removesuffix('-long')}, {what}", PEER, ours, theirs, amount, unit, bar, note)


if __name__ == "__main__":
    raise SystemExit(by_model.main(__doc__, CONTENDERS, MODELS, measure, PACKAGES, texts=0))
