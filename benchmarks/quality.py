"""Claim: dense and BM25 together, MaxSim on top or not, never find worse than the better of the two alone.

Asks the questions of questions.toml to the standard library's docstrings, encoded by the bundled all-MiniLM-L6-v2 and
BM25. Recall@10 is the share of the answers among the first ten; nDCG@10 has the grades as gains (Järvelin & Kekäläinen
2002). Ends with 1 where a pipeline is worse than the best single leg by more than noise: where the 95 % interval of the
difference, by paired bootstrap over the questions, lies below zero.

    python benchmarks/quality.py [--write] [--precision int8]
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import markers
import numpy as np
from facts import facts
from numpy.typing import NDArray

from tercet import Engine
from tercet.fusion import maxsim, rrf
from tercet_server.demo.collection import Collection, Hits
from tercet_server.demo.passages import read_passages, standard_library
from tercet_server.demo.search import DENSE_MODEL, FUSED, RERANKED, SHARE, SPARSE_MODEL, fused

QUESTIONS = Path(__file__).with_name("questions.toml")
REPORT = Path(__file__).parents[1] / "docs" / "quality.md"
KINDS = ("all", "keyword", "paraphrase", "mixed")
METRICS = ("recall@10", "nDCG@10")

CUT = 10
SHARES = np.arange(0, 1.001, 0.05).round(2).tolist()  # to choose from on one half of the questions
RESAMPLES, SEED = 10_000, 0

LEGS, GATED = ("dense", "BM25"), ("hybrid", "hybrid + MaxSim")

Metrics = NDArray[np.float64]  # (questions, 2): recall@10 and nDCG@10


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the grades of the passages that answer it, by position in the corpus."""

    kind: str
    text: str
    grades: dict[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What the two legs find for a question, and a way to score candidates by MaxSim."""

    dense: Hits
    sparse: Hits
    maxsim: Callable[[tuple[int, ...]], Hits]


def rerank(found: Found, hits: Hits, share: float = SHARE) -> Hits:
    """Return the best of `hits`, their scores fused with MaxSim; a share of 1 is MaxSim alone."""
    best = dict(list(hits.items())[:RERANKED])
    return fused(best, found.maxsim(tuple(best)), share)


PIPELINES: dict[str, Callable[[Found], Hits]] = {
    "dense": lambda found: found.dense,
    "BM25": lambda found: found.sparse,
    "hybrid": lambda found: fused(found.dense, found.sparse),
    "hybrid + MaxSim": lambda found: rerank(found, fused(found.dense, found.sparse)),
}
OTHERS: dict[str, Callable[[Found], Hits]] = {
    "RRF, k = 60": lambda found: rrf([found.dense, found.sparse]),
    "RRF, k = 10": lambda found: rrf([found.dense, found.sparse], k=10),
    "RRF, k = 60, then MaxSim alone": lambda found: rerank(found, rrf([found.dense, found.sparse]), share=1),
    "RRF, k = 60, then RRF with MaxSim": lambda found: _rrf_rerank(found, rrf([found.dense, found.sparse])),
    "hybrid, then MaxSim alone": lambda found: rerank(found, fused(found.dense, found.sparse), share=1),
    "hybrid, then RRF with MaxSim": lambda found: _rrf_rerank(found, fused(found.dense, found.sparse)),
}
WEIGHTED: dict[str, Callable[[Found, float], Hits]] = {
    "RRF, k = 60, BM25 weighted": lambda found, share: rrf([found.dense, found.sparse], weights=[1 - share, share]),
    "RRF, k = 10, BM25 weighted": lambda found, share: rrf(
        [found.dense, found.sparse], k=10, weights=[1 - share, share]
    ),
    "hybrid, BM25 weighted": lambda found, share: fused(found.dense, found.sparse, share),
    "hybrid + MaxSim, MaxSim weighted": lambda found, share: rerank(found, fused(found.dense, found.sparse), share),
}


def _rrf_rerank(found: Found, hits: Hits) -> Hits:
    best = tuple(hits)[:RERANKED]
    return rrf([best, found.maxsim(best)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{REPORT.name}")
    parser.add_argument("--precision", default="float32", help="that the dense model computes in; default float32")
    arguments = parser.parse_args()
    if arguments.write and arguments.precision != "float32":
        parser.error(f"docs/{REPORT.name} is about float32; leave out --write or --precision")
    passages = read_passages(standard_library())
    questions = read_questions([passage.path for passage in passages])
    with Engine(precision=arguments.precision, device="cpu") as engine:
        found = list(search(engine, [passage.text for passage in passages], [question.text for question in questions]))
    kinds = np.array([question.kind for question in questions])
    runs = {name: measure(map(rank, found), questions) for name, rank in (PIPELINES | OTHERS).items()}
    held_out = {name: choose_on_the_other_half(rank, found, questions) for name, rank in WEIGHTED.items()}
    worse, differences = compare(runs, kinds)
    made = str(facts(["torch", "tokenizers"])).partition("; ")[2]
    tables = [
        f"{len(passages):,} passages, {len(questions)} questions. {made}.",
        table({name: runs[name] for name in PIPELINES}, kinds),
        differences,
        "Other pipelines:",
        table({name: runs[name] for name in OTHERS}, kinds),
        "The share of the leg that is weighted, chosen by nDCG@10 on one half of the questions and measured on the "
        "other:",
        table({f"{name} ({', '.join(map(str, shares))})": run for name, (run, shares) in held_out.items()}, kinds),
    ]
    print(*tables, sep="\n\n")
    print(f"\nworse than the best single leg by more than noise: {', '.join(worse) or 'none'}")
    if arguments.write:
        markers.write(REPORT, "\n\n".join(tables))
    return 1 if worse else 0


def read_questions(paths: Sequence[str]) -> list[Question]:
    """Return the questions, their answers as positions in `paths`."""
    positions = {path: i for i, path in enumerate(paths)}
    return [
        Question(kind, asked["text"], {positions[name]: grade for name, grade in asked["answers"].items()})
        for kind, of_kind in tomllib.loads(QUESTIONS.read_text("utf-8")).items()
        for asked in of_kind.values()
    ]


def search(engine: Engine, texts: Sequence[str], questions: Sequence[str]) -> Iterator[Found]:
    """Yield what each question finds; texts and questions are encoded once."""
    outputs = ["dense", "multivector"]
    documents = engine.encode(DENSE_MODEL, texts, output_types=outputs)
    asked = engine.encode(DENSE_MODEL, questions, output_types=outputs, is_query=True)
    terms = engine.encode(SPARSE_MODEL, texts, output_types=["sparse"]).sparse
    asked_terms = engine.encode(SPARSE_MODEL, questions, output_types=["sparse"], is_query=True)
    assert documents.dense is not None and terms is not None
    collection = Collection(documents.dense, terms)
    for query, words in zip(asked, asked_terms, strict=True):
        dense = collection.nearest(query["dense"], FUSED)
        yield Found(dense, collection.lexical(words["sparse"], FUSED), scorer(query["multivector"], documents))


def scorer(query: NDArray[np.float32], documents: Any) -> Callable[[tuple[int, ...]], Hits]:
    """Return what scores candidates by Σ_i max_j q_i·d_j and puts the best first; it remembers its answers."""

    @cache
    def score(candidates: tuple[int, ...]) -> Hits:
        scores = maxsim(query, [documents[i]["multivector"] for i in candidates])
        order = np.argsort(-scores, kind="stable")
        return {candidates[i]: float(scores[i]) for i in order}

    return score


def measure(rankings: Iterator[Hits], questions: Sequence[Question]) -> Metrics:
    """Return recall@10 and nDCG@10 of each question."""
    return np.array([metrics(list(hits)[:CUT], q.grades) for hits, q in zip(rankings, questions, strict=True)])


def metrics(ranking: Sequence[int], grades: Mapping[int, int]) -> tuple[float, float]:
    """Return the share of the answers in the ranking, and Σ gain / log2(1 + rank) over the largest it can be."""
    gains = [grades.get(i, 0) for i in ranking]
    ideal = sorted(grades.values(), reverse=True)[:CUT]
    return sum(gain > 0 for gain in gains) / len(grades), _discounted(gains) / _discounted(ideal)


def _discounted(gains: Sequence[int]) -> float:
    return float(np.sum(np.array(gains) / np.log2(np.arange(2, len(gains) + 2))))


def choose_on_the_other_half(
    rank: Callable[[Found, float], Hits], found: Sequence[Found], questions: Sequence[Question]
) -> tuple[Metrics, list[float]]:
    """Return the metrics of each question under the share that is best for the other half, and the two shares."""
    runs = np.array([measure((rank(f, share) for f in found), questions) for share in SHARES])  # (shares, questions, 2)
    halves = np.arange(len(questions)) % 2
    best = [int(runs[:, halves != half, 1].mean(axis=1).argmax()) for half in (0, 1)]
    return runs[np.array(best)[halves], np.arange(len(questions))], [SHARES[i] for i in best]


def compare(runs: Mapping[str, Metrics], kinds: NDArray[Any]) -> tuple[list[str], str]:
    """Return the pipelines that are worse than the best leg over all questions, and a table of the differences."""
    worse: list[str] = []
    lines = ["| minus the best single leg | questions | recall@10 | nDCG@10 |", "|---|---|---|---|"]
    for name in (*GATED, *OTHERS):
        for kind in KINDS if name in GATED else ("all",):
            cells = [difference(runs, name, of_kind(kind, kinds), metric) for metric in range(len(METRICS))]
            lines.append(f"| {name} | {kind} | {' | '.join(text for text, _ in cells)} |")
            if name in GATED and kind == "all":
                worse += [f"{name} in {METRICS[i]}" for i, (_, highest) in enumerate(cells) if highest < 0]
    return worse, "\n".join(lines)


def difference(runs: Mapping[str, Metrics], name: str, rows: NDArray[np.bool_], metric: int) -> tuple[str, float]:
    """Return the mean difference with its 95 % interval and the leg, and the interval's upper end."""
    leg = max(LEGS, key=lambda leg: runs[leg][rows, metric].mean())
    per_question = (runs[name] - runs[leg])[rows, metric]
    drawn = np.random.default_rng(SEED).integers(0, len(per_question), (RESAMPLES, len(per_question)))
    lowest, highest = np.percentile(per_question[drawn].mean(axis=1), [2.5, 97.5])
    return f"{per_question.mean():+.3f} [{lowest:+.3f}, {highest:+.3f}] {leg}", float(highest)


def table(runs: Mapping[str, Metrics], kinds: NDArray[Any]) -> str:
    """Return the means of both metrics, for all questions and for each kind."""
    columns = [f"{kind} {metric}" for kind in KINDS for metric in METRICS]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, run in runs.items():
        means = np.concatenate([run[of_kind(kind, kinds)].mean(axis=0) for kind in KINDS])
        lines.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def of_kind(kind: str, kinds: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which questions count."""
    return np.ones(len(kinds), bool) if kind == "all" else np.asarray(kinds == kind)


if __name__ == "__main__":
    raise SystemExit(main())
