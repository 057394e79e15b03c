"""The dispatcher: worker threads that take batches from the queue and run them on resident models."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from functools import partial

from tercet.engine.batch_run import Outcome, run_batch
from tercet.engine.calls import Call
from tercet.engine.crew import Crew
from tercet.engine.delivery import deliver
from tercet.engine.device import Device
from tercet.engine.events import BatchEvent, Observers, OutOfMemoryEvent
from tercet.engine.guests import Guests
from tercet.engine.queue import BatchKey, BatchQueue, Lane, Work, by_call
from tercet.engine.residency import Residency
from tercet.engine.schedule import Batch, Schedule
from tercet.engine.state import EngineState, Waiting
from tercet.engine.turns import Turns
from tercet.errors import EngineClosedError, OverloadedError, TercetError, reraisable
from tercet.nn.programs import Seat, own_seat, seated
from tercet.nn.team import compute_with
from tercet.threads import is_deep, start_deep

log = logging.getLogger(__name__)

_RATE_SMOOTHING = 0.2
_RETRY_AFTER_S = (0.1, 60.0)
_FAREWELL_S = 2.0  # that guests may take: one may be fetching a model for minutes


class Dispatcher:
    """Admits calls, batches their work across callers, and delivers the rows. Thread-safe.

    Args:
        device: where batches run.
        residency: makes models resident.
        pool: where the rows of bulk work are handed back, off the device's threads.
        max_queue_tokens: new calls are refused while more tokens than this would wait.
        observers: told of batches, and of those that do not fit into memory.

    Attributes:
        guests: other threads that tokenise or compute, for which `close` waits.
    """

    def __init__(
        self,
        device: Device,
        residency: Residency,
        pool: Executor,
        *,
        max_queue_tokens: int,
        observers: Observers | None = None,
    ) -> None:
        self.max_queue_tokens = max_queue_tokens
        self.tokens_per_s = 0.0
        self.restarts = 0
        self._device = device
        self._residency = residency
        self._pool = pool
        self._observers = observers if observers is not None else Observers()
        self.guests = Guests()
        self._crew = Crew(device.workers)
        self._seat: Seat | None = None  # the first worker's, which runs nothing beside a wide batch
        self._lock = self._crew.lock
        self._drained = threading.Condition(self._lock)
        self._queue = BatchQueue(device.max_batch_tokens)
        self._turns = Turns(residency, self._crew)
        self._schedule = Schedule(device, self._queue, self._turns)
        self._calls: set[Call] = set()
        self._closing = self._stopped = False
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=self._serve, args=(i, device.lane()), name=f"tercet-worker-{i}", daemon=True)
            for i in range(device.workers)
        ]
        for thread in self._threads:
            start_deep(thread)

    @property
    def alive(self) -> bool:
        """Whether every worker thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def elsewhere(self) -> bool:
        """Whether the threads are those of another process, which this one was forked from."""
        return os.getpid() != self._process

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a batch."""
        return self._queue.tokens

    def state(self) -> EngineState:
        """Return what waits and what runs, just now."""
        with self._lock:
            waiting, now = self._queue.waiting(), time.monotonic()
        return EngineState(
            waiting={model: Waiting(tokens, max(0.0, now - oldest)) for model, (tokens, oldest) in waiting.items()},
            max_queue_tokens=self.max_queue_tokens,
            tokens_per_s=self.tokens_per_s,
            used_bytes=self._residency.used_bytes,
            budget_bytes=self._residency.budget_bytes,
            restarts=self.restarts,
            alive=self.alive,
        )

    def check_room(self, tokens: int) -> None:
        """Raise unless a call whose first sequences have so many tokens can be let in.

        Raises:
            OverloadedError: the queue is full; `retry_after_s` says when there should be room.
            EngineClosedError: the engine is closing, or another process's.
        """
        if self.elsewhere:
            raise EngineClosedError(
                f"this engine is process {self._process}'s, from which {os.getpid()} was forked without its threads; "
                "make an Engine in each process"
            )
        if self._closing:
            raise EngineClosedError()
        waiting = self._queue.tokens
        if waiting and waiting + tokens > self.max_queue_tokens:
            raise OverloadedError(
                f"the queue holds {waiting:,} tokens and {tokens:,} more would pass the limit of "
                f"{self.max_queue_tokens:,}; try again later or raise max_queue_tokens",
                retry_after_s=self._retry_after_s(waiting),
            )

    def admit(self, call: Call, tokens: int) -> None:
        """Let a call in, or raise as `check_room` does."""
        with self._lock:
            self.check_room(tokens)
            self._calls.add(call)
        call.done.add_done_callback(lambda _: self._forget(call))

    def put(self, key: BatchKey, works: Sequence[Work]) -> None:
        """Queue work of an admitted call, unless it has ended meanwhile."""
        with self._lock:
            if self._stopped or not works or not works[0].call.alive:
                return
            self._queue.put(key, works)
            if not self._schedule.is_full and not works[0].call.here:
                self._crew.wake()

    def run_here(self) -> None:
        """Run what waits on the calling thread, if it is one program alone; have a worker run it otherwise.

        It spares two changes of thread. Only a program needs none of the threads that torch keeps for each thread that
        computes with several cores (`nn/team.py`).
        """
        with self.guests:
            with self._lock:
                seat = self._seat if is_deep() else None
                batch = None if self._stopped or seat is None else self._schedule.start_alone(seat)
                if batch is None and self._queue.tokens and not self._schedule.is_full:
                    self._crew.wake()
            if batch is None or not batch.works or seat is None:
                return
            try:
                with seated(seat, batch.cores):
                    self._run(batch, here=True)
            except Exception:
                log.exception("a batch failed outside its model; its calls know")

    def close(self, drain_s: float) -> None:
        """Refuse new calls, give the admitted ones `drain_s` to finish, fail the rest, and stop the threads."""
        with self._lock:
            self._closing = True
            self._crew.wake()  # a caller that was interrupted may have left its work to nobody
            self._drained.wait_for(lambda: not self._calls, drain_s)
            self._stopped = True
            rest = list(self._calls)
            self._crew.wake_all()
        for call in rest:
            call.fail(EngineClosedError(f"the engine was closed and this call did not finish within {drain_s:g} s"))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self.guests.leave(_FAREWELL_S)

    def _forget(self, call: Call) -> None:
        with self._lock:
            self._calls.discard(call)
            if call.in_flight_tokens:
                self._queue.discard(lambda _, work: work.call is call)
                self._crew.wake()  # to end the turn of a model that has no work left
            if not self._calls:
                self._drained.notify_all()

    # ── the worker threads ─────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self, worker: int, lane: AbstractContextManager[object]) -> None:
        """Run batches until stopped; a failure outside any batch is logged and the loop goes on."""
        if worker == 0 and self._device.target.type == "cpu":
            self._seat = own_seat()
        while not self._stopped:
            try:
                with lane:
                    while (batch := self._next(worker)) is not None:
                        self._run(batch)
                        del batch  # it leads to its model, which may be evicted while this thread waits for the next
            except BaseException:
                self.restarts += 1
                log.exception("a worker failed outside a batch and was restarted")

    def _next(self, worker: int) -> Batch | None:
        """Return the most urgent batch whose model has its turn and that this worker may run, or None once stopped."""
        with self._lock:
            while not self._stopped:
                self._fail_refused()
                self._turns.end(self._queue.models())
                batch = self._schedule.start(worker)
                if batch is None:
                    if not self._turns.refused:  # at once, while a failed model cools down: its calls are told first
                        self._crew.sleep(worker)
                elif batch.works:
                    if self._queue.tokens and not self._schedule.is_full:
                        self._crew.wake()
                    return batch
            self._turns.end(frozenset())
            return None

    def _fail_refused(self) -> None:
        for model, error in self._turns.refusals().items():
            failed = self._queue.discard(lambda key, _, model=model: key.model == model)  # type: ignore[misc]
            for call, _ in by_call(failed):
                call.fail(reraisable(error))

    def _run(self, batch: Batch, here: bool = False) -> None:
        start = time.monotonic()
        try:
            try:
                if self._device.cores > 1 and not here:
                    compute_with(batch.cores)
                parts = self._forward(batch)
            finally:
                seconds = time.monotonic() - start
                # Before its callers know, so that what they ask for next finds no batch under way and no lease held.
                self._end(batch, seconds)
            for works, rows in parts:
                deliver(works, rows, self._pool if batch.key.lane is Lane.BULK else None)
        except BaseException as error:
            for call, _ in by_call(batch.works):
                call.fail(TercetError(f"the batch was lost: {type(error).__name__}: {error}"))
            raise
        finally:
            if self._observers:
                key, lane = batch.key, batch.key.lane.name.lower()
                self._observers(BatchEvent(key.model, key.outputs, lane, len(batch.works), batch.tokens, seconds))

    def _forward(self, batch: Batch) -> list[Outcome]:
        """Return the batch in parts with their rows, or with what failed them."""
        key, lease = batch.key, batch.turn.lease
        began = time.monotonic()
        lease.touch()
        short = partial(self._tell_out_of_memory, key.model)
        parts = []
        for part in run_batch(lease.model, batch.works, key.outputs, self._device, self._residency.evict_idle, short):
            for call, _ in by_call(part[0]):
                call.ran(began)
            began = time.monotonic()
            parts.append(part)
        return parts

    def _end(self, batch: Batch, seconds: float) -> None:
        with self._lock:
            self._measure(batch.tokens * self._schedule.running, seconds)  # as if those beside it had done as much
            self._schedule.end(batch)
            self._turns.end(self._queue.models())
            if self._queue.tokens:
                self._crew.wake()  # what waits may be for another worker than this one

    def _tell_out_of_memory(self, model: str, step: str) -> None:
        log.warning("%s: a batch did not fit into memory; next: %s", model, step)
        if self._observers:
            self._observers(OutOfMemoryEvent(model, step))

    def _measure(self, tokens: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-6)
        self.tokens_per_s += (rate - self.tokens_per_s) * (_RATE_SMOOTHING if self.tokens_per_s else 1.0)

    def _retry_after_s(self, waiting: int) -> float:
        low, high = _RETRY_AFTER_S
        return min(max(waiting / self.tokens_per_s if self.tokens_per_s else 1.0, low), high)
