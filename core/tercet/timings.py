"""Where the time of a call went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a call's time went, in milliseconds; tokenising overlaps the device's work when items are many.

    Attributes:
        queue_ms: until its first batch began, loading the model included. tokenization_ms: tokenising, in all.
        inference_ms: the batches that held its items, other calls' items included. total_ms: from start to result.
    """

    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    total_ms: float
