"""Claim: a model swapped in from pinned host memory is there in at most 1.3 times what its bytes take to be copied.

Two models of one size take turns in an engine that has room for one of them, so every call swaps, and what was swapped
out waits in pinned memory. Beside the time of the swap stands a lone copy of as many bytes from pinned memory to the
device, in the same rounds. The time from asking to the first vector stands beside a new `SentenceTransformer` of the
folder, its files in the page cache.

    python benchmarks/gpu_swap.py [--model bge-base] [--rounds 5]
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gpu
import numpy as np
import swap
from agreement import check
from drawn import checkpoint
from harness import Contender, interleave
from outcome import Row

BAR = round(1 / 1.3, 3)
COPY = "the copy alone"
MODELS = ("bge-base", "bge-m3")
_PARK_S = 1.0  # after each of the first loads, so that what is swapped out is in pinned memory


def size_bytes(path: str, device: str) -> int:
    """Return what the model's weights take on the device."""
    from tercet import Engine

    with Engine(device=device, precision=gpu.PRECISION) as engine:
        return engine.describe(path).size_bytes


class Tercet(swap.Swapped):
    """The engine, with two models and room for one; without texts its answers are the seconds of all swaps."""

    def __init__(self, asked: Namespace) -> None:
        self.paths, self.device = [str(checkpoint(asked.model, seed)) for seed in (0, 1)], asked.device
        self.swaps: list[float] = []

    def load(self) -> None:
        from tercet import Engine

        room = int(1.1 * max(size_bytes(path, self.device) for path in self.paths))
        self.engine = Engine(device=self.device, precision=gpu.PRECISION, memory_budget=room)
        for _ in range(2 * len(self.paths)):
            self.answers([swap.TEXT])
            time.sleep(_PARK_S)

    def encode(self, texts: list[str]) -> Any:
        before = self.engine.describe(self.paths[0])
        vectors = self.engine.encode(self.paths[0], texts).dense
        after = self.engine.describe(self.paths[0])
        assert after.loads == before.loads + 1 and after.load_ms is not None, "the model was there already"
        self.swaps.append(after.load_ms / 1e3)
        return vectors

    def drop(self) -> None:
        self.paths.reverse()  # the other one is asked next

    def answers(self, texts: Sequence[str]) -> Any:
        return super().answers(texts) if texts else np.array(self.swaps)


class Copy(swap.Swapped):
    """As many bytes, from pinned memory to memory that is there; without texts its answer is how many."""

    def __init__(self, asked: Namespace) -> None:
        self.path, self.device = str(checkpoint(asked.model)), asked.device

    def begin(self) -> None:
        import torch

        self.size = size_bytes(self.path, self.device)
        pinned = self.device != "cpu"
        self.host = torch.empty(self.size, dtype=torch.uint8, pin_memory=pinned).fill_(1)
        self.there = torch.empty(self.size, dtype=torch.uint8, device=self.device)

    def encode(self, texts: list[str]) -> None:
        self.there.copy_(self.host, non_blocking=True)
        gpu.synchronize(self.device)

    def drop(self) -> None:
        """Keep both: the time of making them is not the copy's."""

    def answers(self, texts: Sequence[str]) -> Any:
        return super().answers(texts) if texts else np.array([self.size])


class SentenceTransformers(swap.SentenceTransformers):
    """sentence-transformers, whose model is made anew on the device."""

    dtype = gpu.PRECISION

    def __init__(self, asked: Namespace) -> None:
        self.path, self.device = str(checkpoint(asked.model)), asked.device


CONTENDERS: dict[str, Callable[[Namespace], Contender]] = {
    "tercet": Tercet,
    COPY: Copy,
    swap.OTHER: SentenceTransformers,
}


def measure(name: str, asked: Namespace) -> Iterator[Row]:
    """Yield the row of one model's swaps, and that of the time to the first vector."""
    for seed in (0, 1):
        checkpoint(name, seed)  # built before anything is timed
    with gpu.processes(__file__, CONTENDERS, name) as children:
        exact = {contender: children[contender] for contender in ("tercet", swap.OTHER)}
        check(exact, exact, [swap.TEXT, "Two of them."], gpu.CLOSE)
        taken = interleave(children, [[swap.TEXT], []] * swap.SWAPS, asked.rounds)
        swaps = children["tercet"].answers([])[-asked.rounds * swap.SWAPS :]
        size = children[COPY].answers([])[0]
    ours = np.reshape(swaps, (asked.rounds, swap.SWAPS))
    theirs = np.array(taken[COPY])[:, ::2]
    note = f"{size / 1e6:.0f} MB at {size / np.median(theirs) / 1e9:.1f} GB/s, longest {ours.max() * 1e3:.1f} ms"
    middles = (np.median(each, axis=1).tolist() for each in (ours, theirs))
    yield Row.of_times(f"{name}, swapped in from pinned memory, p50", COPY, *middles, BAR, note)
    claim = f"{name}, swapped out, to the first vector, p50"
    yield swap.row(claim, swap.PEER, taken["tercet"], taken[swap.OTHER], None)


if __name__ == "__main__":
    raise SystemExit(gpu.main(__doc__, CONTENDERS, MODELS, measure, swap.PACKAGES))
