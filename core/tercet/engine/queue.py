"""The queue: tokenised sequences waiting for a batch, grouped by what can run together.

Pure bookkeeping, no threads: the worker holds the lock.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tercet.nn.batch import TokenSequence

if TYPE_CHECKING:
    from tercet.engine.calls import Call


class Lane(IntEnum):
    """Which traffic a call belongs to: someone waits for a query, nobody for one document of a bulk load."""

    INTERACTIVE = 0
    BULK = 1


# Bulk work counts as this much younger than it is, so that queries go first; older bulk work still beats new queries.
BULK_HANDICAP_S = 0.5
# How many of the oldest sequences a batch may choose from to find equal lengths.
WINDOW = 2048


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What sequences must share to run in one forward pass: the model, the heads that read it, the lane."""

    model: str
    outputs: tuple[str, ...]
    lane: Lane = Lane.INTERACTIVE


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One sequence of one call.

    Attributes:
        index: the item's place in its call.
        enqueued_at: seconds, by the monotonic clock.
    """

    call: Call
    index: int
    sequence: TokenSequence
    enqueued_at: float

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return len(self.sequence)


class _Line:
    """Work of one key, the oldest first.

    Attributes:
        works: (n) at least one.
    """

    def __init__(self, works: Sequence[Work]) -> None:
        self.works: list[Work] = []
        self._lengths = array("q")  # as numpy reads it: thousands may wait, and each batch looks at them
        self.append(works)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Their tokens, (n,)."""
        return np.frombuffer(self._lengths, np.int64)

    def append(self, works: Sequence[Work]) -> None:
        self.works += works
        self._lengths.extend([len(work.sequence) for work in works])

    def without(self, gone: NDArray[np.intp]) -> list[Work]:
        """Take the pieces at these places out and return them."""
        out = [self.works[place] for place in gone.tolist()]
        left = np.ones(len(self.works), np.bool_)
        left[gone] = False
        self.works, self._lengths = list(compress(self.works, left.tolist())), array("q", self.lengths[left].tobytes())
        return out


class BatchQueue:
    """Work by `BatchKey`, in order of arrival; `take` cuts batches of near-equal lengths from it.

    Args:
        max_batch_tokens: packed tokens of one batch; one longer sequence makes a batch alone.
    """

    def __init__(self, max_batch_tokens: int) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.tokens = 0
        self._tokens: Counter[str] = Counter()
        self._lines: dict[BatchKey, _Line] = {}

    def __len__(self) -> int:
        return sum(len(line.works) for line in self._lines.values())

    def put(self, key: BatchKey, works: Sequence[Work]) -> None:
        """Append work, oldest first."""
        if not works:
            return
        if key in self._lines:
            self._lines[key].append(works)
        else:
            self._lines[key] = _Line(works)
        self._count(key, sum(work.tokens for work in works))

    def keys(self) -> list[BatchKey]:
        """Return the keys that have work, the most urgent first: oldest first, bulk with a handicap."""
        return sorted(self._lines, key=self._urgency)

    def only(self) -> BatchKey | None:
        """Return the key of all that waits, or None if nothing does or not all has the same."""
        return next(iter(self._lines)) if len(self._lines) == 1 else None

    def models(self) -> set[str]:
        """Return the models that have work."""
        return {key.model for key in self._lines}

    def waiting(self) -> dict[str, tuple[int, float]]:
        """Return, by model, the tokens that wait and when the oldest of its work was enqueued."""
        found: dict[str, tuple[int, float]] = {}
        for key, line in self._lines.items():
            first = line.works[0].enqueued_at
            _, oldest = found.get(key.model, (0, first))
            found[key.model] = (self._tokens[key.model], min(oldest, first))
        return found

    def oldest(self) -> float | None:
        """Return when the oldest waiting work was enqueued."""
        return min((line.works[0].enqueued_at for line in self._lines.values()), default=None)

    def callers(self, key: BatchKey) -> int:
        """Return how many calls the oldest `WINDOW` of a key belong to."""
        return len({work.call for work in self._lines[key].works[:WINDOW]})

    def take(self, key: BatchKey, parts: int = 1) -> list[Work]:
        """Remove and return one batch: the oldest work and, among the oldest `WINDOW`, those nearest to it in length.

        The oldest always goes, so nothing waits for more batches than there is older work; the result is sorted by
        length, so that attention finds runs of equal sequences.

        Args:
            parts: of so many of near-equal tokens the batch is one; the budget may have it be less.
        """
        line = self._lines[key]
        if len(line.works) == 1:  # a lone query
            del self._lines[key]
            self._count(key, -line.works[0].tokens)
            return line.works
        lengths = line.lengths[:WINDOW]
        part = self.max_batch_tokens if parts == 1 else -(-int(line.lengths.sum()) // parts)
        chosen = _nearest(lengths, min(self.max_batch_tokens, part))
        self._count(key, -int(lengths[chosen].sum()))
        works = line.without(chosen[np.argsort(lengths[chosen], kind="stable")])
        if not line.works:
            del self._lines[key]
        return works

    def discard(self, matches: Callable[[BatchKey, Work], bool]) -> list[Work]:
        """Remove and return all work that matches."""
        gone: list[Work] = []
        for key, line in list(self._lines.items()):
            lost = line.without(np.flatnonzero([matches(key, work) for work in line.works]))
            gone += lost
            self._count(key, -sum(work.tokens for work in lost))
            if not line.works:
                del self._lines[key]
        return gone

    def _count(self, key: BatchKey, tokens: int) -> None:
        self.tokens += tokens
        self._tokens[key.model] += tokens

    def _urgency(self, key: BatchKey) -> float:
        return self._lines[key].works[0].enqueued_at + (BULK_HANDICAP_S if key.lane is Lane.BULK else 0.0)


def _nearest(lengths: NDArray[np.int64], budget: int) -> NDArray[np.intp]:
    """Return where the first of the lengths and those nearest to it are, up to the budget of tokens.

    One more, the longest that fits, closes the gap: products are given few row counts (`linear.even_rows`), and what a
    batch lacks to one is computed for nothing.
    """
    nearest = np.argsort(np.abs(lengths - lengths[0]), kind="stable")
    ends = np.cumsum(lengths[nearest])
    count = max(1, int(np.searchsorted(ends, budget, side="right")))
    fitting = np.where(lengths[nearest[count:]] <= budget - ends[count - 1], lengths[nearest[count:]], 0)
    if not fitting.any():
        return nearest[:count]
    return np.append(nearest[:count], nearest[count + int(fitting.argmax())])


def by_call(works: Iterable[Work]) -> Iterator[tuple[Call, list[int]]]:
    """Yield each call among the works with the positions of its work."""
    calls: dict[int, tuple[Call, list[int]]] = {}
    for position, work in enumerate(works):
        calls.setdefault(id(work.call), (work.call, []))[1].append(position)
    yield from calls.values()
