"""The feed: tokenises a call's items a window at a time, ahead of the device but never far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

from tercet.checkpoints.checkpoint import Prepared, Ready
from tercet.engine.calls import Call
from tercet.engine.dispatcher import Dispatcher
from tercet.engine.queue import BatchKey, Work
from tercet.errors import EngineClosedError

Prepare = Callable[[int, int], list[Prepared]]

# Few, since a chunk's Python is done in one go: on a GPU 256 at a time held its workers up for 3 ms of each 5.
_CHUNK_ITEMS = 64
# Tokens that one call keeps in flight, in batches: enough to find equal lengths, and a bound on its memory. Large
# batches, a GPU's, need fewer of them: equal lengths gain nothing there.
_BATCHES_AHEAD, _MOST_TOKENS_AHEAD = 32, 1 << 17


class Feed:
    """Feeds one call to the dispatcher, so that a call of any length takes bounded memory for tokens.

    Args:
        call: what to feed.
        prepare: (first, last) → the prepared items of that range.
        key: what the sequences can be batched with.
        max_batch_tokens: of one batch; so many batches' worth may be in flight before tokenising pauses.
        pool: where later windows are tokenised.
    """

    def __init__(
        self, call: Call, prepare: Prepare, key: BatchKey, dispatcher: Dispatcher, max_batch_tokens: int, pool: Executor
    ) -> None:
        self._call, self._prepare, self._key = call, prepare, key
        self._dispatcher, self._pool = dispatcher, pool
        self._window_tokens = min(max_batch_tokens * _BATCHES_AHEAD, _MOST_TOKENS_AHEAD)
        self._next = 0
        self._pumping = threading.Lock()

    def start(self) -> None:
        """Tokenise and queue the first window on this thread; the rest follows as batches come back.

        Raises:
            InvalidInputError: an item of the first chunk is wrong.
            OverloadedError: there is no room for the first chunk.
        """
        self._dispatcher.check_room(0)  # before any work is put into a call that will be refused
        prepared = self._prepared()
        self._dispatcher.admit(self._call, sum(len(item) for item in prepared if not isinstance(item, Ready)))
        self._call.on_room = self._on_room
        self._queue(prepared)
        self._on_room()

    def _on_room(self) -> None:
        if self._wants_more():
            try:
                self._pool.submit(self._pump)
            except RuntimeError:  # as the process ends, before the engine hears of it
                self._call.fail(EngineClosedError())

    def _wants_more(self) -> bool:
        call = self._call
        return self._next < len(call) and call.alive and call.in_flight_tokens < self._window_tokens

    def _pump(self) -> None:
        """Tokenise chunk by chunk until the window is full; one thread at a time."""
        while self._wants_more() and self._pumping.acquire(blocking=False):
            try:
                self._queue(self._prepared())
            except Exception as error:
                self._call.fail(error)
            finally:
                self._pumping.release()

    def _prepared(self) -> list[Prepared]:
        """Return the next chunk, tokenised."""
        start = time.perf_counter()
        prepared = self._prepare(self._next, min(self._next + _CHUNK_ITEMS, len(self._call)))
        self._call.tokenization_s += time.perf_counter() - start
        return prepared

    def _queue(self, prepared: list[Prepared]) -> None:
        first, now = self._next, time.monotonic()
        self._next += len(prepared)
        self._call.begin(first, prepared)
        ready = [(first + i, item) for i, item in enumerate(prepared) if isinstance(item, Ready)]
        self._dispatcher.put(
            self._key,
            [Work(self._call, first + i, item, now) for i, item in enumerate(prepared) if not isinstance(item, Ready)],
        )
        if ready:
            outputs = self._key.outputs
            rows = {output: [item.rows[output] for _, item in ready] for output in outputs}
            self._call.deliver([index for index, _ in ready], rows)
