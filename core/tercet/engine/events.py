"""Events: what the engine does, told to whoever wants to count it; with nobody listening it costs a truth test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tercet.types import ModelState


@dataclass(frozen=True, slots=True)
class ResidencyEvent:
    """Something that happened to a model's weights, with every record as it was just then.

    Attributes:
        kind: "load", "fail" or "evict".
        records: name → state, last_used, leases, pinned.
        seconds: that the load took; None for the other kinds.
    """

    kind: str
    model: str
    used_bytes: int
    records: Mapping[str, tuple[ModelState, int, int, bool]]
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """A batch that has run, whatever became of it.

    Attributes:
        outputs: the heads that read it. lane: "interactive" or "bulk".
        sequences: how many texts of all callers; tokens: theirs.
    """

    model: str
    outputs: tuple[str, ...]
    lane: str
    sequences: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class OutOfMemoryEvent:
    """A batch that did not fit, and what is tried next.

    Attributes:
        step: "release" cached memory, "evict" idle models, "halve" the batch, or "refuse" a sequence that is alone.
    """

    model: str
    step: str


Event = ResidencyEvent | BatchEvent | OutOfMemoryEvent
Observe = Callable[[Event], None]


class Observers:
    """Who is told. Thread-safe.

    Observers must be quick, must not raise and must not call the engine: locks are held.
    """

    def __init__(self) -> None:
        self._observers: tuple[Observe, ...] = ()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._observers)

    def __call__(self, event: Event) -> None:
        """Tell them all, on this thread."""
        for observe in self._observers:
            observe(event)

    def add(self, observe: Observe) -> None:
        """Tell this one too, from now on."""
        with self._lock:
            self._observers = (*self._observers, observe)

    def remove(self, observe: Observe) -> None:
        """Tell this one no longer."""
        with self._lock:
            self._observers = tuple(known for known in self._observers if known != observe)
