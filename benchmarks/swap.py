"""Claim: a model that is cold in a warm process answers in half the time that sentence-transformers takes.

From asking to the first vector, the files in the page cache: Tercet encodes with a model that was unloaded before;
sentence-transformers makes a `SentenceTransformer` of the folder and encodes. Both drop the model, untimed, before the
next time. Each runs in a process of its own in which everything is imported; rounds are interleaved.

    python benchmarks/swap.py [--model MiniLM] [--rounds 5]
"""

from __future__ import annotations

import gc
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import by_model
from agreement import check
from cache import bundled
from drawn import checkpoint
from harness import Contender, interleave, started
from outcome import Row

BAR = 2.0  # half the time
PACKAGES = ("tercet", "torch", "sentence-transformers", "transformers", "safetensors")
PEER, OTHER = "SentenceTransformer(path) + encode", "sentence-transformers"
TEXT = "How long does it take until the first vector is there?"
MODELS: dict[str, Callable[[], Any]] = {"MiniLM": bundled, "bge-base": lambda: checkpoint("bge-base")}
SWAPS = 3  # a round
_REST_S = 0.3  # after dropping a model, so that what goes on in the background is over


class Swapped:
    """A contender that starts every call without the model; a call without texts drops it."""

    def __init__(self, name: str) -> None:
        self.path = str(MODELS[name]())

    def load(self) -> None:
        self.begin()
        self.answers([TEXT])

    def run(self, texts: Sequence[str]) -> Any:
        if texts:
            return self.encode(list(texts))
        self.drop()
        gc.collect()
        time.sleep(_REST_S)
        return None

    def answers(self, texts: Sequence[str]) -> Any:
        vectors = self.run(texts)
        self.run([])
        return vectors

    def begin(self) -> None:
        """Import what is needed."""

    def encode(self, texts: list[str]) -> Any:
        """Return the vectors, by a model that is not there yet."""
        raise NotImplementedError

    def drop(self) -> None:
        """Let go of the model."""
        raise NotImplementedError


class Tercet(Swapped):
    """The engine, whose model is unloaded."""

    def begin(self) -> None:
        from tercet import Engine

        self.engine = Engine(precision="float32", device="cpu")

    def encode(self, texts: list[str]) -> Any:
        return self.engine.encode(self.path, texts).dense

    def drop(self) -> None:
        while not self.engine.unload(self.path):
            time.sleep(0.01)
        assert all(model.state != "resident" for model in self.engine.models())


class SentenceTransformers(Swapped):
    """sentence-transformers, whose model is made anew."""

    model: Any = None
    device, dtype = "cpu", "float32"

    def begin(self) -> None:
        import sentence_transformers  # noqa: F401 - imported before anything is timed

    def encode(self, texts: list[str]) -> Any:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(self.path, device=self.device, model_kwargs={"dtype": self.dtype})
        return self.model.encode(texts)

    def drop(self) -> None:
        self.model = None


CONTENDERS: dict[str, Callable[[str], Contender]] = {"tercet": Tercet, OTHER: SentenceTransformers}


def measure(name: str, asked: Namespace) -> Row:
    """Return the row of one model."""
    with started(__file__, CONTENDERS, ["--model", name]) as children:
        check(children, CONTENDERS, [TEXT, "Two of them."])
        taken = interleave(children, [[TEXT], []] * SWAPS, asked.rounds)
    return row(f"{name}, cold, to the first vector, p50", PEER, taken["tercet"], taken[OTHER], BAR)


def row(
    claim: str, peer: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], bar: float | None
) -> Row:
    """Return the row of rounds whose calls are each followed by one that drops the model."""
    cold = [[calls[::2] for calls in rounds] for rounds in (ours, theirs)]
    middle = [[median(calls) for calls in rounds] for rounds in cold]
    longest = " and ".join(f"{max(map(max, rounds)) * 1e3:.0f}" for rounds in cold)
    return Row.of_times(claim, peer, *middle, bar, f"longest {longest} ms")


if __name__ == "__main__":
    raise SystemExit(by_model.main(__doc__, CONTENDERS, MODELS, measure, PACKAGES))
