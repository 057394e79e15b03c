"""The schedule: which work runs next, on which worker, with how many cores."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tercet.engine.cores import gains, may_share
from tercet.engine.device import Device
from tercet.engine.queue import BatchKey, BatchQueue, Work
from tercet.engine.turns import Turn, Turns
from tercet.nn.packed import states_dtype
from tercet.nn.programs import Seat

# One of OpenMP's helpers that slept may be woken on the core of the thread that waits for it, and both then take turns
# there, 8 ms at a time: one of ten queries 20 ms apart took 15 to 20 ms on all cores and 6 to 7 on one.
_AWAKE_S = 0.004  # after a batch: about as long as OpenMP's helpers wait for more before they sleep
_BRIEF = 1_000_000_000  # weights times tokens: about 8 ms on a core; what takes longer gains all the same
_CALLERS_EACH = 4  # for each core: so many keep it busy, with the next that they ask


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Work for one forward pass.

    Attributes:
        wide: whether no other runs beside it. cores: with how many it is computed.
    """

    key: BatchKey
    works: list[Work]
    turn: Turn
    wide: bool
    cores: int

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return sum(work.tokens for work in self.works)


class Schedule:
    """Which batch a worker runs next (docs/adr/0007-cores-and-row-counts.md); its owner holds the lock.

    Args:
        device: how many workers there are, and in what precision they compute.
        queue: the work that waits.
        turns: which models may run.
    """

    def __init__(self, device: Device, queue: BatchQueue, turns: Turns) -> None:
        self._device, self._queue, self._turns = device, queue, turns
        self._on_cores = device.target.type == "cpu"
        self._running: list[Batch] = []
        self._ended_at = -math.inf

    @property
    def running(self) -> int:
        """How many batches are under way."""
        return len(self._running)

    @property
    def is_full(self) -> bool:
        """Whether one batch has all cores; the worker that runs it looks for more work when it is done."""
        return any(batch.wide for batch in self._running)

    def start(self, worker: int) -> Batch | None:
        """Take the most urgent batch off the queue, or return None if this worker may run none now.

        Its works may be none, if their calls have ended; such a batch is not under way and must not be ended.
        """
        turns = [(key, self._turns.get(key.model)) for key in self._queue.keys()]  # noqa: SIM118 - not a mapping
        key, turn = next(((key, turn) for key, turn in turns if turn is not None), (None, None))
        if key is None or turn is None or not self._has_room(worker, turn):
            return None
        shares = not self._running and self._may_share(turn)
        works = self._take(key, self._parts(key, turn))
        wide = self._is_wide(turn) or (shares and not self._queue.tokens and self._pays(turn, works))
        return self._started(Batch(key, works, turn, wide, cores=self._device.cores if wide else 1))

    def start_alone(self, seat: Seat) -> Batch | None:
        """Take what waits as a batch beside which none runs, or return None if more waits, or it is no program there.

        Its works may be none as for `start`.
        """
        key = self._queue.only()
        turn = None if key is None or self._running else self._turns.get(key.model)
        if key is None or turn is None:
            return None
        model = turn.lease.model
        if not model.programs.known(seat, key.outputs, self._queue.tokens):
            return None
        # Not `_pays`: a program waits for no helper that sleeps.
        cores = self._device.cores if gains(model) else 1
        return self._started(Batch(key, self._take(key), turn, wide=True, cores=cores))

    def _take(self, key: BatchKey, parts: int = 1) -> list[Work]:
        return [work for work in self._queue.take(key, parts) if work.call.alive]

    def _started(self, batch: Batch) -> Batch:
        if batch.works:
            batch.turn.running += 1
            self._running.append(batch)
        return batch

    def end(self, batch: Batch) -> None:
        """Count a batch as done."""
        batch.turn.running -= 1
        self._ended_at = time.monotonic()
        self._running.remove(batch)

    def _has_room(self, worker: int, turn: Turn) -> bool:
        """Whether this worker may run a batch now: a wide one has all cores to itself, and the first worker runs it."""
        if self.is_full:
            return False
        if worker == 0:
            return not (self._is_wide(turn) and self._running)
        return not self._is_wide(turn) and bool(self._running)

    def _is_wide(self, turn: Turn) -> bool:
        return self._on_cores and turn.wide

    def _may_share(self, turn: Turn) -> bool:
        cores = self._device.cores
        # What `may_share` finds out holds for float32; a row of products of rounded numbers is always the same.
        rounds_alike = states_dtype(self._device.dtype) == torch.float32
        return cores > 1 and rounds_alike and may_share(turn.lease.model, cores)

    def _parts(self, key: BatchKey, turn: Turn) -> int:
        """Return among how many batches what waits is shared out: one for each free core, if enough callers wait."""
        free = self._device.cores - self.running
        if not self._on_cores or self._is_wide(turn) or free < 2:
            return 1
        return free if self._queue.callers(key) >= _CALLERS_EACH * free else 1

    def _pays(self, turn: Turn, works: Sequence[Work]) -> bool:
        """Whether a batch gains by all cores: helpers are still awake, or it is long enough to wait until they are."""
        if time.monotonic() - self._ended_at < _AWAKE_S:
            return True
        return sum(work.tokens for work in works) * turn.lease.model.multiplied_weights > _BRIEF
