"""What residency hands out and keeps: leases and records."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tercet.errors import TercetError
from tercet.nn.model import Model
from tercet.types import ModelState

if TYPE_CHECKING:
    from tercet.engine.residency import Residency


@dataclass(eq=False)
class Resident:
    """One model's record: how to load it, whether it is there, and what has happened to it.

    Attributes:
        name: the model's id. size_bytes: of its weights on the device. load: returns it with its weights there.
        last_used: a counter that grows with every use of any model; the smallest is the least recently used.
        attempts: failed loads in a row. retry_at: when the next may be tried, by the monotonic clock.
    """

    name: str
    size_bytes: int
    load: Callable[[], Model]
    state: ModelState = "available"
    model: Model | None = None
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
