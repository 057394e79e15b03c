"""A call on its way: tokenised window by window, run in whatever batches suit, its rows collected in order."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tercet.checkpoints.checkpoint import Prepared, Ready
from tercet.types import Timings

Notify = Callable[[int], None]


class Columns(Protocol):
    """Where the rows of a call go; `put` is called under the call's lock."""

    def put(self, indices: NDArray[np.int64], rows: Mapping[str, Sequence[Any]]) -> None:
        """Keep, per output, the rows of the items at `indices`."""
        ...


class _Outcome(Future[None]):
    """A future that lets go of its callbacks once it has called them.

    They lead back to the call that waits for it: a circle, in which its rows would stay until the garbage collector
    comes round.
    """

    def _invoke_callbacks(self) -> None:
        super()._invoke_callbacks()  # type: ignore[misc]
        self._done_callbacks.clear()  # type: ignore[attr-defined]


class Call:
    """One request of n items: what is still missing, what has arrived, and who waits for it. Thread-safe.

    Attributes:
        columns: the rows that have arrived.
        tokens: (n,) int32 tokens of each item. truncated: (n,) bool.
        done: resolved when all rows are there, failed with the first error, or cancelled.
        started_at: seconds, by the monotonic clock.
        here: whether its caller, who waits on a thread, runs its batch on it where it can (`Dispatcher.run_here`).
        on_progress: called with the number of finished items, on whichever thread finished them.
        on_room: called when items have left the device, so that more may be fed; neither once it is done.
        tokenization_s: seconds spent on tokenising its items so far.
    """

    def __init__(self, size: int, columns: Columns, on_progress: Notify | None = None, here: bool = False) -> None:
        self.columns, self.here = columns, here
        self.tokens = np.zeros(size, np.int32)
        self.truncated = np.zeros(size, np.bool_)
        self.done: Future[None] = _Outcome()
        self.started_at = time.monotonic()
        self.on_progress = on_progress
        self.on_room: Callable[[], None] | None = None
        self.in_flight_tokens = 0
        self.tokenization_s = 0.0
        self._inference_s = self._ran_until = 0.0
        self._queued_at: float | None = None
        self._first_batch_at: float | None = None
        self._remaining = size
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def alive(self) -> bool:
        """Whether anybody still wants the result."""
        return not self.done.done()

    @property
    def finished(self) -> int:
        """How many items have their rows."""
        return len(self) - self._remaining

    @property
    def timings(self) -> Timings:
        """Where the time has gone so far."""
        queued_at = self._queued_at or self.started_at
        return Timings(
            queue_ms=((self._first_batch_at or queued_at) - queued_at) * 1e3,
            tokenization_ms=self.tokenization_s * 1e3,
            inference_ms=self._inference_s * 1e3,
            total_ms=(time.monotonic() - self.started_at) * 1e3,
        )

    def ran(self, began_at: float) -> None:
        """Count a batch with items of this call that began then, by the monotonic clock, and has just ended."""
        with self._lock:
            self._first_batch_at = self._first_batch_at or began_at
            now = time.monotonic()
            self._inference_s += now - max(began_at, self._ran_until)  # batches that overlap count once
            self._ran_until = now

    def begin(self, first: int, prepared: Sequence[Prepared]) -> None:
        """Record the lengths of items that were just tokenised; they count as in flight."""
        with self._lock:
            self._queued_at = self._queued_at or time.monotonic()
            tokens = [item.tokens if isinstance(item, Ready) else len(item) for item in prepared]
            self.tokens[first : first + len(prepared)] = tokens
            self.truncated[first : first + len(prepared)] = [item.truncated for item in prepared]
            self.in_flight_tokens += sum(tokens)

    def deliver(self, indices: Sequence[int], rows: Mapping[str, Sequence[Any]]) -> None:
        """Store the rows of some items; the last ones complete the call."""
        if not self.alive:
            return
        places = np.asarray(indices, np.int64)
        with self._lock:
            self.columns.put(places, rows)
            self._remaining -= len(places)
            self.in_flight_tokens -= int(self.tokens[places].sum())
            finished, on_progress, on_room = self.finished, self.on_progress, self.on_room
        if on_progress is not None:
            on_progress(finished)
        if finished == len(self):
            self._resolve(lambda: self.done.set_result(None))
        elif on_room is not None:
            on_room()

    def fail(self, error: BaseException) -> None:
        """End the call with an error; the first outcome counts."""
        self._resolve(lambda: self.done.set_exception(error))

    def cancel(self) -> None:
        """End the call without a result: nobody waits any more."""
        self._resolve(self.done.cancel)

    def _resolve(self, resolve: Callable[[], object]) -> None:
        # Futures settle a race between two outcomes themselves: the second one raises.
        with contextlib.suppress(InvalidStateError):
            resolve()
        self.on_room = self.on_progress = None  # which lead back here as well
