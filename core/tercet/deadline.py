"""Deadlines: when a caller stops waiting, in process and on both sides of a connection."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tercet.errors import DeadlineExceededError
from tercet.inputs import seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a caller stops waiting, by the monotonic clock; never, if `timeout_s` was None."""

    timeout_s: float | None
    at: float | None

    @classmethod
    def after(cls, timeout_s: float | None) -> Deadline:
        """Return the deadline `timeout_s` seconds from now.

        Raises:
            InvalidInputError: not a positive number.
        """
        seconds("timeout_s", timeout_s)
        return cls(timeout_s, None if timeout_s is None else time.monotonic() + timeout_s)

    def left_s(self) -> float | None:
        """Return the seconds left, at least 0, or None for any number."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def error(self, what: str) -> DeadlineExceededError:
        """Return the error for a caller whose time ran out while `what`."""
        return DeadlineExceededError(
            f"timeout_s={self.timeout_s:g} ran out {what}; allow more time or send less at once"
        )
