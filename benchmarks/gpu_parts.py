"""The parts of a pass on a GPU, each beside what it stands for; no claim, but what docs/adr/0013-on-a-gpu.md reads.

Attention by our kernel beside torch's operator for packed sequences, on 16,384 tokens; the norm of a sum beside a sum
and a norm; a backbone's recorded pass beside the same pass queued kernel by kernel; a copy from page-locked memory
beside one from ordinary memory; and of a bulk load in the engine, how long the device computes. All in bfloat16, in one
process, in turns.

    python benchmarks/gpu_parts.py [--rounds 5]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median

import gpu
import numpy as np
import torch
from corpus import mixed_texts
from drawn import checkpoint
from harness import options
from outcome import Row, finish
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from tercet import Engine
from tercet.checkpoints.checkpoint import EncodeSettings
from tercet.checkpoints.open import open_checkpoint
from tercet.nn import varlen
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.norms import LayerNorm
from tercet.nn.room import MOST_TOKENS
from tercet.types import Item

DEVICE, DTYPE = "cuda", torch.bfloat16
_CALLS = 30  # a round
_BYTES = 218 << 20  # of a base-size model in bfloat16


def main() -> int:
    parser = options(__doc__, [], rounds=5)
    asked = parser.parse_args()
    made = gpu.device_facts(DEVICE, ("tercet", "torch"))
    with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
        rows = [row for part in (attention, norms, passes, copies, busy) for row in part(asked.rounds)]
    return finish(rows, made, asked.json)


def beside(claim: str, peer: str, rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> Row:
    """Return the row of two ways to do one thing, each called until the device is done, in turns."""
    taken: tuple[list[float], list[float]] = [], []
    for call in (ours, theirs):
        for _ in range(3):
            call()
    for _ in range(rounds):
        for seconds, call in zip(taken, (ours, theirs), strict=True):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(_CALLS):
                call()
            torch.cuda.synchronize()
            seconds.append((time.perf_counter() - start) / _CALLS)
    return Row.of_times(claim, peer, *taken)


def attention(rounds: int) -> Iterator[Row]:
    """Yield our kernel beside torch's, for texts alike and mixed."""
    mixed = sorted(len(text.split()) + 2 for text in mixed_texts(200))
    for kind, lengths in (("of 100 tokens", [100] * 163), ("of mixed lengths", mixed), ("of 500 tokens", [500] * 32)):
        batch = PackedBatch.of([TokenSequence(np.zeros(n, np.int64)) for n in within(lengths)], DEVICE)
        for heads, width in ((12, 32), (12, 64), (16, 64)):
            q, k, v = torch.randn(len(batch.input_ids), 3 * heads, width, device=DEVICE, dtype=DTYPE).split(heads, 1)
            library = varlen._torch_varlen()
            assert library is not None
            yield beside(
                f"attention, {heads} heads of {width}, texts {kind}",
                "torch's operator",
                rounds,
                lambda: varlen.short_attention(q, k, v, batch, width**-0.5, (-1, -1)),  # noqa: B023
                lambda: library.attend(q, k, v, batch, width**-0.5, (-1, -1)),  # noqa: B023
            )


def within(lengths: Sequence[int]) -> list[int]:
    """Return as many of the lengths, spread evenly, as an engine puts into one pass."""
    count = min(len(lengths), int(MOST_TOKENS / np.mean(lengths)))
    return [lengths[i] for i in np.linspace(0, len(lengths) - 1, count).astype(int)]


def norms(rounds: int) -> Iterator[Row]:
    """Yield the norm of a sum beside a sum and a norm."""
    norm = LayerNorm(768).to(DEVICE, DTYPE)
    x, y = torch.randn(2, MOST_TOKENS, 768, device=DEVICE, dtype=DTYPE)
    yield beside(
        "norm of a sum, 16,384 × 768",
        "torch's operations",
        rounds,
        lambda: norm.of_sum(x, lambda residual=None: y),
        lambda: functional.layer_norm(x + y, (768,), norm.weight, norm.bias),
    )


def passes(rounds: int) -> Iterator[Row]:
    """Yield recorded passes of bge-base beside queued ones, the results left on the device."""
    opened = open_checkpoint(str(checkpoint("bge-base")))
    model = opened.load(torch.device(DEVICE), DTYPE)
    items = [Item(text) for text in mixed_texts(200)]
    texts = sorted((t for t in opened.encode(items, EncodeSettings()) if isinstance(t, TokenSequence)), key=len)
    full = int(MOST_TOKENS / np.mean([len(text) for text in texts])) - 5
    for count in (1, 8, full):
        batch = PackedBatch.of(texts[:: len(texts) // count][:count], DEVICE)
        yield beside(
            f"bge-base, a pass over {len(batch.input_ids):,} tokens of {count} texts",
            "the same kernel by kernel",
            rounds,
            lambda: model.states(batch),  # noqa: B023
            lambda: model.backbone(batch),  # noqa: B023
        )


def copies(rounds: int) -> Iterator[Row]:
    """Yield a model's way to the device from page-locked memory, beside from memory that is not."""
    there = torch.empty(_BYTES, dtype=torch.uint8, device=DEVICE)
    pinned = torch.ones(_BYTES, dtype=torch.uint8).pin_memory()
    plain = torch.ones(_BYTES, dtype=torch.uint8)
    claim = f"copy of {_BYTES >> 20} MiB from page-locked memory"
    yield beside(
        claim, "ordinary memory", rounds, lambda: there.copy_(pinned, non_blocking=True), lambda: there.copy_(plain)
    )


def busy(rounds: int) -> Iterator[Row]:
    """Yield how much of a bulk load's time the device has something to compute."""
    path, texts = str(checkpoint("bge-base")), mixed_texts(12_000)
    computed: list[float] = []
    lasted: list[float] = []
    with Engine(device=DEVICE, precision="bfloat16") as engine:
        for _ in range(3):  # so that what is made on first use is there
            engine.encode(path, texts)
        for _ in range(rounds):
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                start = time.perf_counter()
                engine.encode(path, texts)
                lasted.append(time.perf_counter() - start)
            spans = [(e.time_range.start, e.time_range.end) for e in seen.events() if e.device_type.name == "CUDA"]
            computed.append(covered(spans) / 1e6)
    share = median(a / b for a, b in zip(computed, lasted, strict=True))
    claim = "bge-base in bulk, time in which the device computes"
    yield Row(claim, "the time that it takes", median(computed) * 1e3, median(lasted) * 1e3, "ms", share)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    raise SystemExit(main())
