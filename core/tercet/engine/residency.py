"""Residency: which models' weights are on the device, within a budget of bytes, swapped by true LRU.

A model in use is leased; a leased or pinned one stays. Loads happen one at a time on a thread of their own, while
leased models go on serving. Requests for models that are not there form one fair queue.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from tercet.engine.events import Observers, ResidencyEvent
from tercet.engine.lease import Lease, Resident
from tercet.engine.parking import ParkingLot
from tercet.errors import EngineClosedError, ModelLoadError, TercetError
from tercet.nn.model import Model
from tercet.nn.team import compute_with


class Residency:
    """Keeps models on the device within `budget_bytes`. Thread-safe.

    Args:
        budget_bytes: what all resident and loading models may take together; never exceeded.
        idle_ttl_s: a model unused for so long is dropped; None keeps it until room is needed.
        observers: told of loads, failures and evictions, under the lock.
        lot: where evicted models may wait; default nowhere.
    """

    def __init__(
        self,
        budget_bytes: int,
        *,
        idle_ttl_s: float | None = None,
        observers: Observers | None = None,
        lot: ParkingLot | None = None,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.idle_ttl_s = idle_ttl_s
        self.used_bytes = 0
        self.records: dict[str, Resident] = {}
        self._observers = observers if observers is not None else Observers()
        self._lot = lot or ParkingLot()
        self._clock = itertools.count(1)
        self._queue: deque[Resident] = deque()
        self._blocked = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="tercet-loader", daemon=True)
        self._thread.start()

    @property
    def contended(self) -> bool:
        """Whether a load is waiting for leased models to make room."""
        return self._blocked

    def add(self, name: str, size_bytes: int, load: Callable[[], Model]) -> Resident:
        """Return the record of a model, made on first sight."""
        with self._changed:
            return self.records.setdefault(name, Resident(name, size_bytes, load))

    def acquire(self, resident: Resident) -> Future[Lease]:
        """Return a lease once the model is resident; cancel the future to withdraw.

        The future fails with the load's own error, at once while a failed model cools down.
        """
        future: Future[Lease] = Future()
        with self._changed:
            refusal = self._refusal(resident)
            # While a load waits for room, an idle model must not slip back into use ahead of it.
            grant_now = refusal is None and resident.state == "resident" and (resident.leases or not self._blocked)
            if grant_now:
                lease = self._grant(resident)
            elif refusal is None:
                self._enqueue(resident, future)
        if refusal is not None:
            future.set_exception(refusal)
        elif grant_now:
            future.set_result(lease)
        return future

    def pin(self, resident: Resident, pinned: bool) -> None:
        """Keep a model once it is resident, or let it go by use again."""
        with self._changed:
            resident.pinned = pinned
            self._changed.notify_all()

    def unload(self, resident: Resident) -> bool:
        """Drop a model's weights and their copy unless it is in use, forget its failures; return whether it is gone."""
        with self._changed:
            resident.forgive()
            if resident.evictable:
                self._evict(resident)
            if resident.state in ("parked", "available"):
                self._lot.drop(resident)
            return resident.state == "available"

    def evict_idle(self) -> int:
        """Drop every model that is neither leased nor pinned; return the bytes freed."""
        with self._changed:
            before = self.used_bytes
            for resident in self._by_use():
                self._evict(resident)
            return before - self.used_bytes

    def close(self) -> None:
        """Refuse new leases, fail the waiting ones, drop all models and stop the loader thread."""
        with self._changed:
            self._closed = True
            waiters = [future for resident in self._queue for future in self._take_waiters(resident)]
            self._queue.clear()
            self._changed.notify_all()
        for future in waiters:
            future.set_exception(EngineClosedError("the engine was closed while the model was waiting to load"))
        self._thread.join()
        self.evict_idle()
        for resident in self.records.values():
            self._lot.drop(resident)

    # ── under the lock ─────────────────────────────────────────────────────────────────────────────────────────────

    def _refusal(self, resident: Resident) -> TercetError | None:
        if self._closed:
            return EngineClosedError()
        if resident.state == "failed" and time.monotonic() < resident.retry_at:
            return resident.error
        return None

    def _grant(self, resident: Resident) -> Lease:
        resident.leases += 1
        return Lease(self, resident)

    def _enqueue(self, resident: Resident, future: Future[Lease]) -> None:
        resident.waiters.append(future)
        if resident not in self._queue and resident.state != "loading":
            self._queue.append(resident)
            self._changed.notify_all()

    def _take_waiters(self, resident: Resident) -> list[Future[Lease]]:
        waiters, resident.waiters = resident.waiters, []
        return [future for future in waiters if future.set_running_or_notify_cancel()]

    def _by_use(self) -> list[Resident]:
        return sorted((r for r in self.records.values() if r.evictable), key=lambda r: r.last_used)

    def _evict(self, resident: Resident) -> None:
        self._emit("evict", resident)
        resident.leave()
        self.used_bytes -= resident.size_bytes

    def _emit(self, kind: str, resident: Resident, seconds: float | None = None) -> None:
        if self._observers:
            records = {r.name: (r.state, r.last_used, r.leases, r.pinned) for r in self.records.values()}
            self._observers(ResidencyEvent(kind, resident.name, self.used_bytes, records, seconds))

    def touch(self, resident: Resident) -> None:
        """Count one use of a model; `Lease.touch` calls it."""
        with self._changed:
            resident.hits += 1
            resident.use(next(self._clock))

    def release(self, resident: Resident) -> None:
        """End one lease; `Lease.release` calls it."""
        with self._changed:
            resident.leases -= 1
            if self._blocked:  # else the loader would wake for nothing, and take the interpreter's lock from the worker
                self._changed.notify_all()

    # ── the loader thread ──────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        compute_with(1)
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Callable[[], None] | None:
        """Return the next load, its bytes reserved, or what is done when there is none to do; None when closed."""
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._evict_expired()
                    if unparked := self._lot.next(self.records):
                        return partial(self._park, unparked)
                    self._changed.wait(self._until_expiry())
                if self._closed:
                    return None
                resident = self._queue[0]
                error = self._make_room(resident)
                granted = self._grant_residents()
                ready = error is None and resident in self._queue
                if ready:
                    self.used_bytes += resident.size_bytes
                    resident.state = "loading"
                if resident in self._queue:
                    self._queue.remove(resident)
            self._hand_out(granted)
            if error is not None:
                self._fail(resident, error)
            elif ready:
                return partial(self._load, resident)

    def _park(self, resident: Resident) -> None:
        if (model := resident.model) is None:
            return
        copy = self._lot.copy(model, resident.name)
        with self._changed:
            if copy is not None and resident.model is model:
                self._lot.keep(resident, copy, self.records)

    def _make_room(self, resident: Resident) -> TercetError | None:
        """Evict by use until the model fits, waiting for leases to end; return why it never can."""
        while not self._closed and any(not future.cancelled() for future in resident.waiters):
            if resident.state == "resident" or self.used_bytes + resident.size_bytes <= self.budget_bytes:
                break
            if error := self._hopeless(resident):
                return error
            idle = self._by_use()
            if idle:
                self._evict(idle[0])
                continue
            self._blocked = True
            self._changed.wait()
        self._blocked = False
        return None

    def _hopeless(self, resident: Resident) -> TercetError | None:
        pinned = sum(r.size_bytes for r in self.records.values() if r.pinned and r.state == "resident")
        if resident.size_bytes + pinned <= self.budget_bytes:
            return None
        held = f", of which pinned models hold {pinned:,}" if pinned else ""
        return ModelLoadError(
            f"{resident.name} needs {resident.size_bytes:,} bytes of a memory budget of {self.budget_bytes:,}{held}; "
            "raise memory_budget, unpin a model, or choose a lower precision"
        )

    def _grant_residents(self) -> list[tuple[Future[Lease], Lease]]:
        """Return leases for every queued model that is still, or again, resident, and for none that was given up."""
        granted = []
        for resident in [r for r in self._queue if r.state == "resident" or not r.waiters]:
            self._queue.remove(resident)
            granted += [(future, self._grant(resident)) for future in self._take_waiters(resident)]
        withdrawn = [r for r in self._queue if all(future.cancelled() for future in r.waiters)]
        for resident in withdrawn:
            self._queue.remove(resident)
            resident.waiters.clear()
        return granted

    @staticmethod
    def _hand_out(granted: list[tuple[Future[Lease], Lease]]) -> None:
        # Outside the lock: a future's callbacks run here, and they take other locks.
        for future, lease in granted:
            future.set_result(lease)

    def _load(self, resident: Resident) -> None:
        start = time.perf_counter()
        try:
            model = resident.copy.come_back() if resident.copy else resident.load()
        except Exception as error:
            with self._changed:
                self.used_bytes -= resident.size_bytes
            self._fail(resident, error)
            return
        with self._changed:
            seconds = time.perf_counter() - start
            resident.arrive(model, seconds)
            resident.use(next(self._clock))
            granted = [(future, self._grant(resident)) for future in self._take_waiters(resident)]
            self._emit("load", resident, seconds)
        self._hand_out(granted)

    def _fail(self, resident: Resident, error: Exception) -> None:
        """Record a failed load and tell those who wait for it."""
        with self._changed:
            known = resident.fail(error)
            waiters = self._take_waiters(resident)
            self._emit("fail", resident)
            self._changed.notify_all()
        for future in waiters:
            future.set_exception(known)

    def _evict_expired(self) -> None:
        if self.idle_ttl_s is not None:
            limit = time.monotonic() - self.idle_ttl_s
            for resident in [r for r in self._by_use() if (r.last_used_at or 0.0) <= limit]:
                self._evict(resident)

    def _until_expiry(self) -> float | None:
        """Return the seconds until a model may have gone unused for too long; for one in use, the whole limit."""
        if self.idle_ttl_s is None:
            return None
        used = [r.last_used_at for r in self._by_use() if r.last_used_at is not None]
        return max(0.01, min(used) + self.idle_ttl_s - time.monotonic()) if used else self.idle_ttl_s
