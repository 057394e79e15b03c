"""Claim: in float32 on a CPU Tercet encodes faster than every exact peer: mixed texts in bulk, and one short query.

All encode with the bundled all-MiniLM-L6-v2, each in a process of its own; rounds are interleaved. A peer that cannot
run here is left out, and why is printed. "The best exact peer" is the fastest of those that compute in float32.

    python benchmarks/encode.py [--texts 2000] [--queries 200] [--rounds 5] [--peers onnxruntime fastembed]
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import onnx_environment
from agreement import check
from cache import bundled
from corpus import mixed_texts, short_queries
from facts import facts
from harness import Child, Contender, interleave, options, percentile, serve, started, totals
from minilm_graph import OnnxRuntime, OnnxRuntimeInt8, exported, rounded
from onnx_environment import Fastembed, SentenceTransformersOnnx
from outcome import Row, finish

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FLOAT32, BFLOAT16, INT8 = "sentence-transformers", "sentence-transformers-bfloat16", "onnxruntime-int8"
BEST = "the best exact peer"
# Texts in bulk by (precision of ours, peer); a single short query by peer.
BULK_BARS: dict[tuple[str, str], float | None] = {
    ("tercet", FLOAT32): 2.8,
    ("tercet", BEST): 1.2,
    ("tercet-bfloat16", FLOAT32): 4.5,
    ("tercet-bfloat16", BFLOAT16): 1.8,
    ("tercet-int8", FLOAT32): 5.5,
    ("tercet-int8", INT8): 1.3,
    ("tercet-int16", FLOAT32): None,
    ("tercet-int16", BEST): None,
    ("tercet-int16", INT8): None,
}
QUERY_BARS = {FLOAT32: 2.0, BEST: 1.0}


class Tercet:
    """The engine in process, with its defaults."""

    precision = "float32"

    def load(self) -> None:
        from tercet import Engine

        self.engine = Engine(precision=self.precision, device="cpu")
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.engine.encode(MODEL, list(texts)).dense


class TercetBfloat16(Tercet):
    """The same in bfloat16."""

    precision = "bfloat16"


class TercetInt8(Tercet):
    """The same in int8."""

    precision = "int8"


class TercetInt16(Tercet):
    """The same in int16."""

    precision = "int16"


class SentenceTransformers:
    """sentence-transformers with its defaults: batches of 32, sorted by length."""

    dtype = "float32"

    def load(self) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(bundled()), device="cpu", model_kwargs={"dtype": self.dtype})
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.model.encode(list(texts), batch_size=32)


class SentenceTransformersBfloat16(SentenceTransformers):
    """The same with bfloat16 weights."""

    dtype = "bfloat16"


def bfloat16() -> None:
    """Raise where the processor cannot multiply bfloat16: torch then does it in software, slower than float32."""
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise OSError("this processor does not multiply bfloat16")


def int8() -> None:
    """Raise where the processor does not multiply int8."""
    from tercet.nn.int8 import has_int8

    if not has_int8():
        raise OSError("this processor does not multiply int8")


def int16() -> None:
    """Raise where the processor does not multiply pairs of int16."""
    from tercet.nn.jit.pairs import has_pairs

    if not has_pairs():
        raise OSError("this processor does not multiply pairs of int16")


@dataclass(frozen=True, slots=True)
class Way:
    """How a contender is made and what must be there; `exact` where it computes in float32."""

    make: Callable[[], Contender]
    exact: bool = True
    prepare: Callable[[], object] = lambda: None
    elsewhere: bool = False


def other_environment() -> None:
    """Make what the peers in the other environment need."""
    exported()
    onnx_environment.install()


WAYS = {
    "tercet": Way(Tercet),
    "tercet-bfloat16": Way(TercetBfloat16, exact=False, prepare=bfloat16),
    "tercet-int8": Way(TercetInt8, exact=False, prepare=int8),
    "tercet-int16": Way(TercetInt16, exact=False, prepare=int16),
    FLOAT32: Way(SentenceTransformers),
    BFLOAT16: Way(SentenceTransformersBfloat16, exact=False, prepare=bfloat16),
    "sentence-transformers-onnx": Way(SentenceTransformersOnnx, prepare=other_environment, elsewhere=True),
    "onnxruntime": Way(OnnxRuntime, prepare=exported),
    INT8: Way(OnnxRuntimeInt8, exact=False, prepare=rounded),
    "fastembed": Way(Fastembed, prepare=other_environment, elsewhere=True),
}
PEERS = [name for name in WAYS if name != "tercet"]


def available(wanted: Sequence[str]) -> list[str]:
    """Return the contenders that can run here, Tercet first; say why any other cannot."""
    there = ["tercet"]
    for name in wanted:
        try:
            WAYS[name].prepare()
            there.append(name)
        except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"left out: {name}: {error}")
    return there


def main() -> int:
    parser = options(__doc__, WAYS, texts=2000, queries=200, rounds=5)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="default all that are there")
    asked = parser.parse_args()
    if asked.child:
        serve(WAYS[asked.child].make)
        return 0
    names = available(asked.peers)
    pythons = {name: onnx_environment.PYTHON for name in names if WAYS[name].elsewhere}
    with started(__file__, names, pythons=pythons) as children:
        cosines = check(children, [name for name in names if WAYS[name].exact])
        bulk = totals(interleave(children, [mixed_texts(asked.texts)], asked.rounds))
        queries = interleave(children, [[q] for q in short_queries(asked.queries)], asked.rounds)
    show(children, bulk, queries, asked.texts)
    packages = ["tercet", "torch", "sentence-transformers", "transformers", "tokenizers"]
    packages += ["onnxruntime"] if {"onnxruntime", INT8} & set(names) else []
    elsewhere = onnx_environment.PACKAGES[1:] if pythons else ()
    return finish(rows(bulk, queries, asked.texts, cosines), facts(packages, elsewhere), asked.json)


def show(children: Mapping[str, Child], bulk: Any, queries: Any, texts: int) -> None:
    """Print what each contender did by itself."""
    print(f"{'':32}{'texts/s':>10}{'query p50 ms':>14}{'query p99 ms':>14}{'load s':>9}{'peak MB':>9}")
    for name, child in children.items():
        flat = [s * 1e3 for round_ in queries[name] for s in round_]
        latencies = f"{median(flat):14.2f}{percentile(flat, 0.99):14.2f}"
        print(f"{name:32}{texts / median(bulk[name]):10.1f}{latencies}{child.load_s:9.2f}{child.peak_mb:9.0f}")


def rows(
    bulk: Mapping[str, Sequence[float]],
    queries: Mapping[str, Sequence[Sequence[float]]],
    texts: int,
    cosines: Mapping[str, float],
) -> list[Row]:
    """Return a row for each peer, and for the best of the exact ones."""
    middle = {name: [median(round_) for round_ in rounds] for name, rounds in queries.items()}
    found: list[Row] = []
    for ours in [name for name in bulk if name.startswith("tercet")]:
        for peer, theirs in _with_best(bulk).items():
            note = "" if ours == "tercet" else f"least cosine to float32 {cosines[ours]:.5f}"
            if peer == INT8 and note:
                note += f", the other's {cosines[INT8]:.5f}"
            claim = f"MiniLM in bulk, {ours.partition('-')[2] or 'float32'}"
            pair = ours, peer.partition(":")[0]
            if pair not in BULK_BARS and ours != "tercet":
                continue
            bar = BULK_BARS.get(pair)
            found.append(Row.of_rates(claim, peer, bulk[ours], theirs, texts, "texts/s", bar, note))
    for peer, theirs in _with_best(middle).items():
        bar = QUERY_BARS.get(peer.partition(":")[0])
        found.append(Row.of_times("MiniLM, one short query, p50", peer, middle["tercet"], theirs, bar))
    return found


def _with_best(seconds: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Return the peers' seconds, once more under its title those of the fastest exact one."""
    peers = {name: taken for name, taken in seconds.items() if not name.startswith("tercet")}
    exact = [name for name in peers if WAYS[name].exact]
    if not exact:
        return peers
    best = min(exact, key=lambda name: median(peers[name]))
    return {**peers, f"{BEST}: {best}": peers[best]}


if __name__ == "__main__":
    raise SystemExit(main())
