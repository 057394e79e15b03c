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

import torch
from torch import Tensor, nn

from tercet.nn.batch import PackedBatch
from tercet.nn.room import MOST_TOKENS, Room
from tercet.nn.shapeless import HostShapeError, ShapelessBatch
from tercet.nn.transfer import upload

log = logging.getLogger(__name__)

_USES = 2  # of a room before it is recorded: a recording costs as much as three passes
_MOST = 64  # recordings of a model on one thread; the longest unused goes
_NEVER = -(1 << 60)
_RECORDING = threading.Lock()


class RoomBatch(ShapelessBatch):
    """A whole room as a batch, whatever it holds: only what is on the device is known of its sequences."""

    @property
    def attended(self) -> Any:
        """Something or None, as of a batch in the room."""
        assert self.room is not None
        return self.key_counts if self.room.masked else None

    @property
    def max_seqlen(self) -> int:
        """What no sequence is longer than."""
        assert self.room is not None
        return self.room.longest

    @classmethod
    def over(cls, block: Tensor, room: Room) -> RoomBatch:
        """Return the batch whose arrays lie in the block."""
        cu, ids, positions, types, keys, blocks = room.layout.views(block)
        return cls(ids, positions, types, cu, None, (), key_counts=keys, query_blocks=blocks, room=room, block=block)


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
        if room is None or self._refused:
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
        while len(made) >= _MOST:
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
    batch = RoomBatch.over(upload(room.empty.present, room.layout, device), room)
    states = _target(backbone(batch))  # called once so that whatever is made on first use is there
    torch.cuda.current_stream(device).synchronize()
    graph, other = torch.cuda.CUDAGraph(), next(iter(_OWN.recordings), None)
    pool = None if other is None else other.graph.pool()
    graph.capture_begin(pool, capture_error_mode="thread_local")  # other threads go on using the device meanwhile
    try:
        states.copy_(backbone(batch))
    finally:
        graph.capture_end()
    recording = Recording(graph, batch, states)
    _OWN.recordings.add(recording)
    return recording


class _Own(threading.local):
    """What a thread's recordings share, of whatever models: memory to compute in, since it plays one at a time.

    Attributes:
        recordings: those that are alive; the pool of one is the pool of all.
        targets: by width and type, where passes leave their states.
    """

    def __init__(self) -> None:
        self.recordings: WeakSet[Recording] = WeakSet()
        self.targets: dict[Any, Tensor] = {}


_OWN = _Own()


def _target(states: Tensor) -> Tensor:
    """Return where a pass with such states leaves them."""
    key = states.shape[1], states.dtype, states.device
    if key not in _OWN.targets:
        _OWN.targets[key] = states.new_empty(MOST_TOKENS, states.shape[1])
    return _OWN.targets[key][: len(states)]
