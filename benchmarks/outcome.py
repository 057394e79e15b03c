"""What a script found: a row for each claim and peer, kept as JSON for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Self

from facts import Facts
from harness import ratio


@dataclass(frozen=True, slots=True)
class Row:
    """One claim against one peer.

    Attributes:
        claim: what was done, with which model. peer: beside whom.
        ours: Tercet's figure. theirs: the peer's. unit: of both.
        ratio: how many times better ours is, more being better whatever the unit: rates as ours / theirs, times and
            memory as theirs / ours; the median over rounds where there are rounds.
        bar: what the ratio must reach, None where nothing is claimed.
        note: what the figures alone do not say.
    """

    claim: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    bar: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the bar is met; so is one that is not there."""
        return self.bar is None or self.ratio >= self.bar

    @classmethod
    def of_rates(
        cls, claim: str, peer: str, ours: Sequence[float], theirs: Sequence[float], count: float, unit: str,
        bar: float | None = None, note: str = "",
    ) -> Self:  # fmt: skip
        """Return the row of `count` things done in these seconds, a round each."""
        rates = count / median(ours), count / median(theirs)
        return cls(claim, peer, *rates, unit, ratio(ours, theirs), bar, note)

    @classmethod
    def of_times(
        cls, claim: str, peer: str, ours: Sequence[float], theirs: Sequence[float],
        bar: float | None = None, note: str = "",
    ) -> Self:  # fmt: skip
        """Return the row of these latencies in seconds, a round's median each."""
        return cls(claim, peer, median(ours) * 1e3, median(theirs) * 1e3, "ms", ratio(ours, theirs), bar, note)

    def __str__(self) -> str:
        bar = "" if self.bar is None else f" (bar {self.bar:g}×{'' if self.reached else ', not reached'})"
        return f"{self.claim} beside {self.peer}: {self.ratio:.2f}×{bar}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one script found, or why there is nothing."""

    script: str
    rows: list[Row]
    facts: Facts | None = None
    failure: str = ""

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` kept."""
        kept = json.loads(path.read_text("utf-8"))
        rows = [Row(**row) for row in kept["rows"]]
        return cls(kept["script"], rows, Facts(**kept["facts"]) if kept["facts"] else None, kept["failure"])


def finish(rows: Sequence[Row], made: Facts, path: Path | None) -> int:
    """Print the rows and the facts, keep them if there is a path, and return the exit code: 0 if all bars are met."""
    print(*rows, made, sep="\n")
    if path is not None:
        Outcome(path.stem, list(rows), made).write(path)
    return 0 if all(row.reached for row in rows) else 1
