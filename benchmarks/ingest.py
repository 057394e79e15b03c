"""What the scripts that fill a store have in common: their bars, and the rows of their outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outcome import Row

FASTER, INSIDE = 2.0, 0.85  # end to end beside the usual path; beside the model alone, so 15 % of the time at most


def rows(store: str, usual: str, seconds: Mapping[str, Sequence[float]], texts: int) -> list[Row]:
    """Return two rows from the rounds' seconds of ours, the usual path and the model alone, in that order."""
    ours, theirs, alone = seconds.values()
    claim = f"{store}, filled end to end"
    return [
        Row.of_rates(claim, usual, ours, theirs, texts, "documents/s", FASTER),
        Row.of_rates(
            claim, "the model alone", ours, alone, texts, "documents/s", INSIDE, "the rest is not the model's"
        ),
    ]
