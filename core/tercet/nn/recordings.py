"""Recordings: a backbone's passes over small batches as CUDA graphs, which the host starts in one call.

Queued kernel by kernel, a pass costs the host 20 µs a kernel and as many turns at the interpreter's lock: on an H100
more than the device takes, for batches below some thousand tokens. See docs/adr/0013-on-a-gpu.md.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from tercet.nn.batch import PackedBatch
from tercet.nn.room import Arrays, Room
from tercet.nn.transfer import upload, views

log = logging.getLogger(__name__)

_USES = 2  # of a room before it is recorded: a recording costs as much as three passes
_MOST_TOKENS = 131_072  # of a model's recordings on one thread, whose states take memory; the longest unused goes
_NEVER = -(1 << 60)
_RECORDING = threading.Lock()


class HostShapeError(Exception):
    """A backbone reads the sequences' own lengths on the host, so that a recording would hold for one batch alone."""


class RoomBatch(PackedBatch):
    """A whole room as a batch, whatever it holds: only what is on the device is known of its sequences."""

    @property
    def lengths(self) -> Any:
        """Raise HostShapeError."""
        raise HostShapeError

    runs = real_runs = extents = first_pooled = attended_index = lengths

    @property
    def max_seqlen(self) -> int:
        """What no sequence is longer than."""
        assert self.room is not None
        return self.room.longest

    @classmethod
    def over(cls, block: Tensor, room: Room) -> RoomBatch:
        """Return the batch whose arrays lie in the block."""
        cu_seqlens, ids, positions, types = views(block, empty(room))
        return cls(ids, positions, types, cu_seqlens, None, (), room=room, block=block)


def empty(room: Room) -> list[Any]:
    """Return a room's arrays without a sequence in it."""
    none = np.zeros(0, np.int64)
    return list(room.laid(Arrays(np.zeros(1, np.int32), none, none)))


@dataclass(frozen=True, eq=False)
class Recording:
    """One pass: what it reads, and the (T, H) states that it leaves, overwritten by the thread's next one."""

    graph: torch.cuda.CUDAGraph
    batch: RoomBatch
    states: Tensor

    def play(self, batch: PackedBatch) -> Tensor:
        """Return the states of a batch in the same room."""
        assert batch.block is not None and self.batch.block is not None
        self.batch.block.copy_(batch.block)
        self.graph.replay()
        return self.states[: len(batch.input_ids)]


class Recordings:
    """The recordings of one backbone, made as its batches come; a thread plays those that it made itself."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._uses: Counter[Room] = Counter()
        self._made: dict[int, OrderedDict[Room, Recording]] = {}
        self._refused = False

    def states(self, batch: PackedBatch) -> Tensor | None:
        """Return the batch's states, or None where there is no recording for it."""
        room = batch.room
        if room is None or self._refused or batch.attended is not None:
            return None
        made = self._made.setdefault(threading.get_ident(), OrderedDict())
        if room not in made:
            self._uses[room] += 1
            if self._uses[room] <= _USES or not self._record(made, room, batch.input_ids.device):
                return None
        made.move_to_end(room)
        return made[room].play(batch)

    def clear(self) -> None:
        """Forget them all, as must be done before the weights move."""
        self._made.clear()
        self._uses.clear()

    def _record(self, made: OrderedDict[Room, Recording], room: Room, device: torch.device) -> bool:
        while made and sum(each.tokens for each in made) + room.tokens > _MOST_TOKENS:
            made.popitem(last=False)
        try:
            with _RECORDING:
                made[room] = _recorded(self._backbone, room, device)
        except HostShapeError:
            self._uses[room] = _NEVER
        except RuntimeError as error:  # no memory among others
            self._refused = True
            log.warning("a pass could not be recorded, so that small batches go on kernel by kernel: %s", error)
        return room in made


def _recorded(backbone: nn.Module, room: Room, device: torch.device) -> Recording:
    block, _ = upload(empty(room), device)
    batch = RoomBatch.over(block, room)
    backbone(batch)  # so that whatever is made on first use is there
    torch.cuda.current_stream(device).synchronize()
    graph, other = torch.cuda.CUDAGraph(), next(iter(_alive()), None)
    # A thread plays one at a time, so that all its recordings may compute in the same memory.
    pool = None if other is None else other.graph.pool()
    graph.capture_begin(pool, capture_error_mode="thread_local")  # other threads go on using the device meanwhile
    try:
        states = backbone(batch)
    finally:
        graph.capture_end()
    recording = Recording(graph, batch, states)
    _alive().add(recording)
    return recording


_threads = threading.local()


def _alive() -> WeakSet[Recording]:
    """Return the recordings of the calling thread, whatever model they are of."""
    if not hasattr(_threads, "recordings"):
        _threads.recordings = WeakSet()
    recordings: WeakSet[Recording] = _threads.recordings
    return recordings
