"""What residency hands out and keeps: leases and records."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tercet.errors import CheckpointError, ModelLoadError, TercetError, UnsupportedModelError
from tercet.nn.model import Model
from tercet.types import ModelState

if TYPE_CHECKING:
    from tercet.engine.parking import Copy
    from tercet.engine.residency import Residency

_PERMANENT = (CheckpointError, UnsupportedModelError)
_FIRST_COOLDOWN_S, _LONGEST_COOLDOWN_S = 1.0, 60.0


@dataclass(eq=False)
class Resident:
    """One model's record: how to load it, whether it is there, and what has happened to it.

    Attributes:
        name: the model's id. size_bytes: of its weights on the device. load: returns it with its weights there.
        last_used: a counter that grows with every use of any model; the smallest is the least recently used.
        copy: of its weights in the host's memory, from which it comes back to a GPU.
        attempts: failed loads in a row. retry_at: when the next may be tried, by the monotonic clock.
    """

    name: str
    size_bytes: int
    load: Callable[[], Model]
    state: ModelState = "available"
    model: Model | None = None
    copy: Copy | None = None
    leases: int = 0
    pinned: bool = False
    last_used: int = 0
    last_used_at: float | None = None
    hits: int = 0
    loads: int = 0
    evictions: int = 0
    load_ms: float | None = None
    attempts: int = 0
    retry_at: float = 0.0
    error: TercetError | None = None
    waiters: list[Future[Lease]] = field(default_factory=list)

    def arrive(self, model: Model, seconds: float) -> None:
        """Record a load that took so long."""
        self.state, self.model, self.error, self.attempts = "resident", model, None, 0
        self.loads += 1
        self.load_ms = seconds * 1e3

    def leave(self) -> None:
        """Let go of the weights on the device."""
        self.model, self.state = None, "available"
        self.evictions += 1
        if self.copy is not None:
            self.copy.leave()
            self.state = "parked"

    def use(self, clock: int) -> None:
        """Record the latest use of any model."""
        self.last_used, self.last_used_at = clock, time.monotonic()

    def fail(self, error: Exception) -> TercetError:
        """Record a failed load, return why: damaged files fail until `forgive`, all else cools down, ever longer."""
        if not isinstance(error, TercetError):
            error = ModelLoadError(f"{self.name} could not be loaded: {type(error).__name__}: {error}")
        self.state, self.error = "failed", error
        cooldown = min(_FIRST_COOLDOWN_S * 2**self.attempts, _LONGEST_COOLDOWN_S)
        self.attempts += 1
        self.retry_at = float("inf") if isinstance(error, _PERMANENT) else time.monotonic() + cooldown
        return error

    def forgive(self) -> None:
        """Forget its failures, and its pin."""
        self.pinned, self.attempts, self.retry_at = False, 0, 0.0
        if self.state == "failed":
            self.state = "available"

    @property
    def evictable(self) -> bool:
        """Whether its weights may be dropped now."""
        return self.state == "resident" and not self.leases and not self.pinned


class Lease:
    """The right to use a resident model; it cannot be evicted until `release`. Not shared between threads."""

    def __init__(self, residency: Residency, resident: Resident) -> None:
        assert resident.model is not None
        self.model = resident.model
        self.resident = resident
        self.granted_at = time.monotonic()
        self._residency = residency
        self._released = False

    def touch(self) -> None:
        """Count one use: the model becomes the most recently used."""
        self._residency.touch(self.resident)

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
        if not self._released:
            self._released = True
            self._residency.release(self.resident)
