"""`measure`: how a server answers so many callers at once, each with its next request as soon as it has its answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter

import numpy as np

from tercet.errors import TercetError

Ask = Callable[[Sequence[str]], Awaitable[object]]

_ACTIONS = ("how to install", "how to configure", "difference between", "best practice for", "troubleshoot", "cost of")
_THINGS = (
    *("vector databases", "hybrid search", "a reverse proxy", "read replicas", "feature flags", "a message queue"),
    *("solar panels", "a heat pump", "winter tyres", "sourdough bread", "travel insurance", "running shoes"),
)  # fmt: skip
QUERIES = tuple(f"{action} {thing}" for thing in _THINGS for action in _ACTIONS)


@dataclass(slots=True)
class Level:
    """What was measured at one concurrency.

    Attributes:
        elapsed_s: from the first request to the last answer.
        latencies_ms: of the requests that succeeded.
        errors: how often each error code was the answer.
        example: one of the error messages.
    """

    concurrency: int
    texts: int = 0
    elapsed_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def document(self) -> Mapping[str, object]:
        """Return the numbers that are reported; percentiles are null where nothing succeeded."""
        done = len(self.latencies_ms)
        p50, p90, p99 = np.percentile(self.latencies_ms, [50, 90, 99]).tolist() if done else (None, None, None)
        return {
            "concurrency": self.concurrency,
            "requests": done,
            "seconds": round(self.elapsed_s, 3),
            "requests_per_s": round(done / self.elapsed_s, 2),
            "texts_per_s": round(self.texts / self.elapsed_s, 2),
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "errors": dict(self.errors),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What each level does.

    Attributes:
        texts: taken in turn, from the first again after the last.
        batch: texts of one request.
        requests: how many at most. seconds: no request starts later.
        warm_up: requests before the first level, not measured.
    """

    texts: Sequence[str]
    batch: int
    requests: int
    seconds: float
    warm_up: int


async def measure(ask: Ask, plan: Plan, concurrencies: Sequence[int], report: Callable[[Level], None]) -> list[Level]:
    """Return one level for each concurrency, measured one after another.

    Raises:
        TercetError: a warm-up request failed.
    """
    batches = _batches(plan)
    for texts in islice(batches, plan.warm_up):
        await ask(texts)
    levels = []
    for concurrency in concurrencies:
        level = await _level(ask, plan, batches, concurrency)
        report(level)
        levels.append(level)
    return levels


async def _level(ask: Ask, plan: Plan, batches: Iterator[list[str]], concurrency: int) -> Level:
    level = Level(concurrency)
    started = perf_counter()
    work = islice(batches, plan.requests)

    async def caller() -> None:
        for texts in work:  # shared: each request is sent by whoever is free
            begun = perf_counter()
            if begun - started >= plan.seconds:
                return
            try:
                await ask(texts)
            except TercetError as error:
                level.errors[error.code] += 1
                level.example = error.message
            else:
                level.latencies_ms.append(1e3 * (perf_counter() - begun))
                level.texts += len(texts)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(caller())
    level.elapsed_s = perf_counter() - started
    return level


def _batches(plan: Plan) -> Iterator[list[str]]:
    texts = cycle(plan.texts)
    while True:
        yield list(islice(texts, plan.batch))
