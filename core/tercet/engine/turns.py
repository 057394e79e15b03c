"""Turns: while a model has work it holds a lease, so that swapping pays; when others wait for room, turns end."""

from __future__ import annotations

import time
from collections.abc import Set
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

from tercet.engine.cores import is_wide
from tercet.engine.crew import Crew
from tercet.engine.lease import Lease
from tercet.engine.residency import Residency

# A contended turn lasts as long as four loads of its model, within bounds: at most about a fifth of the time is spent
# on swapping, and nobody waits for one turn much longer than the upper bound.
_SHORTEST_TURN_S, _LONGEST_TURN_S, _LOADS_PER_TURN = 0.1, 5.0, 4.0


@dataclass(eq=False)
class Turn:
    """A model's lease, how many batches are running on it, and whether every one of them gets all cores."""

    lease: Lease
    running: int = 0

    @cached_property
    def wide(self) -> bool:
        """Whether its batches run one at a time, on all cores."""
        return is_wide(self.lease.model)

    @property
    def over(self) -> bool:
        """Whether it has lasted as long as it may while others wait."""
        load_s = (self.lease.resident.load_ms or 0.0) / 1e3
        limit = min(max(_SHORTEST_TURN_S, load_s * _LOADS_PER_TURN), _LONGEST_TURN_S)
        return time.monotonic() - self.lease.granted_at > limit


class Turns:
    """The turns of all models that have work; every method is called with the crew's lock held.

    Args:
        residency: grants the leases.
        crew: woken when a lease is granted or refused.
    """

    def __init__(self, residency: Residency, crew: Crew) -> None:
        self._residency = residency
        self._crew = crew
        self._held: dict[str, Turn] = {}
        self._asked: dict[str, Future[Lease]] = {}
        self.refused: dict[str, BaseException] = {}  # models that could not be made resident, each with the reason

    def get(self, model: str) -> Turn | None:
        """Return the model's turn, or ask for one and return None until it comes."""
        if model not in self._held and model not in self._asked:
            future = self._residency.acquire(self._residency.records[model])
            self._asked[model] = future
            if future.done():  # whoever asks is awake
                self._take(model, future)
            else:
                future.add_done_callback(lambda answer: self._answer(model, answer))
        return self._held.get(model)

    def refusals(self) -> dict[str, BaseException]:
        """Return, once, those that were refused."""
        refused, self.refused = self.refused, {}
        return refused

    def end(self, busy: Set[str]) -> None:
        """Release the turns of models without work, and those that are over while others wait for room."""
        for model, turn in list(self._held.items()):
            if not turn.running and (model not in busy or (self._residency.contended and turn.over)):
                del self._held[model]
                turn.lease.release()
        for model in self._asked.keys() - busy:
            self._asked[model].cancel()

    def _answer(self, model: str, answer: Future[Lease]) -> None:
        with self._crew.lock:
            self._take(model, answer)
            self._crew.wake()

    def _take(self, model: str, answer: Future[Lease]) -> None:
        self._asked.pop(model, None)
        if not answer.cancelled():
            error = answer.exception()
            if error is None:
                self._held[model] = Turn(answer.result())
            else:
                self.refused[model] = error
