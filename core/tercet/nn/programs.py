"""Programs: a backbone's passes on a CPU as one call of compiled code.

Called one by one, the sixty functions of a pass cost the interpreter as much as the work in them costs few tokens, and
as many turns at its lock. So a pass is traced once: its functions are noted and not run. See docs/adr/0014-programs.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tercet.nn.arena import Arena
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.by_rows import RowWeight
from tercet.nn.jit.code import Compiled
from tercet.nn.jit.program_kernel import ProgramWords, program_kernel
from tercet.nn.jit.words import Given, StepWords, WordRows
from tercet.nn.linear import Linear
from tercet.nn.shapeless import HostShapeError, ShapelessBatch
from tercet.nn.team import noted, together

# Of a batch; an engine makes none longer in float32 on a CPU, unless of one sequence. A prime: rows of a step that are
# so many are the batch's tokens, and not by chance those of something else.
MOST_TOKENS = 1_031
_ALLOCATIONS = {torch.ops.aten.empty, torch.ops.aten.new_empty, torch.ops.aten.empty_like}


class UntraceableError(Exception):
    """A backbone computes by something else than functions that can be noted."""


class Programs:
    """The programs of one backbone, made as its batches come; a thread runs the one that it made itself."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._made: dict[int, Program] = {}
        self._refused = False
        self._settled = False

    def states(self, batch: PackedBatch) -> Tensor | None:
        """Return the batch's (T, H) states, or None where there is no program for it."""
        if self._refused or len(batch.input_ids) > MOST_TOKENS or batch.input_ids.device.type != "cpu":
            return None
        self._settled = self._settled or self._are_laid()
        if not self._settled:
            return None
        thread = threading.get_ident()
        if thread not in self._made:
            try:
                self._made[thread] = traced(self._backbone)
            except (HostShapeError, UntraceableError):
                self._refused = True
                return None
        return self._made[thread].run(batch)

    def _are_laid(self) -> bool:
        """Whether every product is by a kernel of our own whose weight stays where it is from now on."""
        weights = [part.packed for part in self._backbone.modules() if isinstance(part, Linear)]
        self._refused = not all(isinstance(weight, RowWeight) for weight in weights)
        return not self._refused and all(weight.laid for weight in weights if isinstance(weight, RowWeight))


class Program:
    """A pass over any batch of at most `MOST_TOKENS`.

    Args:
        steps: its functions, and what they were given for another batch.
        states: where the last of them wrote the (T, H) states.
        arena: what they compute in.
    """

    def __init__(self, steps: Sequence[tuple[Compiled, StepWords]], states: Tensor, arena: Arena) -> None:
        self._width, self._dtype, self._arena = states.shape[1], states.dtype, arena
        self._functions = [function for function, _ in steps]  # which hold their code
        kinds = list(dict.fromkeys(type(words) for _, words in steps))
        order = sorted(range(len(steps)), key=lambda i: kinds.index(type(steps[i][1])))  # so that kinds lie together
        laid = [list(steps[i][1]) for i in order]
        self._blank = np.array([words + [0] * (max(map(len, laid)) - len(words)) for words in laid])
        self._words = self._blank.copy()
        self._fits: list[tuple[Callable[[WordRows, Given], None], WordRows]] = []
        start = 0
        for kind in kinds:
            stop = start + sum(type(words) is kind for _, words in steps)
            self._fits.append((kind.fit, self._words[start:stop, : len(kind._fields)]))
            start = stop
        places = np.argsort(order)
        self._table = np.array([self._addresses(*step, place) for step, place in zip(steps, places, strict=True)])
        self._out = places[-1], steps[-1][1]._fields.index("y")
        assert self._blank[self._out] == states.data_ptr(), "the last step of a pass writes its states"

    def _addresses(self, function: Compiled, words: StepWords, place: int) -> tuple[int, int, int]:
        """Return the three words that `ProgramWords.steps` has for a step whose words lie in that row."""
        address = self._words[place].ctypes.data
        return function.address, address, address + words._fields.index("units") * self._words.itemsize

    def run(self, batch: PackedBatch) -> Tensor:
        """Return the (T, H) states of a batch, in memory of their own."""
        cores = torch.get_num_threads()
        lookups, extents = batch.lookups, batch.extents
        states = torch.empty(lookups.tokens, self._width, dtype=self._dtype)
        np.copyto(self._words, self._blank)
        given = Given(lookups.tokens, len(extents), extents.ctypes.data, lookups, cores)
        for fit, words in self._fits:
            fit(words, given)
        self._words[self._out] = states.data_ptr()
        together(program_kernel(), ProgramWords(self._table.ctypes.data, len(self._table), units=cores))
        return states


def traced(backbone: nn.Module) -> Program:
    """Return the backbone's pass.

    Raises:
        HostShapeError, UntraceableError: it has none that would hold for other batches.
    """
    batch, arena = _AnyBatch.of([TokenSequence(np.zeros(1, np.int64))] * MOST_TOKENS), _OWN.arena
    with noted() as steps, _Tracing(arena):
        states = backbone(batch)
    if not all(hasattr(words, "fit") and getattr(words, "rows", MOST_TOKENS) == MOST_TOKENS for _, words in steps):
        raise UntraceableError("some rows are not the batch's tokens, or a function cannot be told of another batch")
    return Program(cast(list[tuple[Compiled, StepWords]], steps), states, arena)


class _AnyBatch(ShapelessBatch):
    """As many tokens as any batch has, of sequences that are not known."""

    @property
    def extents(self) -> Any:
        """No sequence."""
        return _NO_EXTENTS


_NO_EXTENTS = np.zeros((0, 3), np.int64)


class _Tracing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Has memory come from an arena, and lets torch compute nothing."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._arena = arena

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler for this, a second and 100 MB

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.is_view:
            return func(*args, **(kwargs or {}))
        if func.overloadpacket in _ALLOCATIONS:
            made = func(*args, **(kwargs or {}))
            return self._arena.empty(made.shape, made.dtype)
        raise UntraceableError(str(func))


class _Own(threading.local):
    """What a thread's programs share, of whatever models, since it runs one at a time."""

    def __init__(self) -> None:
        self.arena = Arena()


_OWN = _Own()
