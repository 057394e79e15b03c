"""What an engine is doing at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work of one model that waits for a batch: its tokens, and the seconds that the oldest of it has waited."""

    tokens: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class EngineState:
    """The queue, the memory and the workers.

    Attributes:
        waiting: by model, those alone that have work waiting.
        max_queue_tokens: calls that would pass it are refused.
        tokens_per_s: through the device while a batch runs, smoothed over the last ones.
        used_bytes: weights on the device and those being loaded; at most budget_bytes.
        restarts: how often a worker failed outside any batch and went on.
    """

    waiting: Mapping[str, Waiting]
    max_queue_tokens: int
    tokens_per_s: float
    used_bytes: int
    budget_bytes: int
    restarts: int
    alive: bool

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, of all models."""
        return sum(waiting.tokens for waiting in self.waiting.values())

    @property
    def oldest_s(self) -> float:
        """Seconds that the oldest waiting work has waited, 0 when none waits."""
        return max((waiting.oldest_s for waiting in self.waiting.values()), default=0.0)
