"""Programs: a backbone's passes on a CPU as one call of compiled code.

Called one by one, the sixty functions of a pass cost the interpreter as much as the work in them costs few tokens, and
as many turns at its lock. So a pass is traced once: its functions are noted and not run. See docs/adr/0014-programs.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tercet.nn.arena import Arena
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.by_rows import RowWeight
from tercet.nn.jit.code import Compiled
from tercet.nn.jit.program_kernel import ProgramWords, program_kernel
from tercet.nn.jit.words import Given, StepWords
from tercet.nn.linear import Linear
from tercet.nn.shapeless import HostShapeError, ShapelessBatch
from tercet.nn.team import noted, together

# Of a batch; an engine makes none with more tokens in float32 on a CPU, unless of one sequence. Primes: so many rows of
# a step are the batch's tokens, or its sequences, and not by chance something else.
MOST_TOKENS, _SEQUENCES = 1_031, 1_021
_ALLOCATIONS = {torch.ops.aten.empty, torch.ops.aten.new_empty, torch.ops.aten.empty_like}

Read = Callable[[Tensor, PackedBatch], Tensor]  # states (T, H) → what a head makes of them


class UntraceableError(Exception):
    """A model computes by something else than functions that can be noted."""


class Programs:
    """The programs of one model, made as its batches come; a thread runs those that it made itself."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._made: dict[tuple[int, tuple[str, ...]], Program | None] = {}

    def run(self, batch: PackedBatch, heads: Mapping[str, tuple[nn.Module, Read]]) -> list[Tensor] | None:
        """Return what each head makes of the batch, or its (T, H) states without any; None if there is no program.

        Args:
            batch: of any device.
            heads: by name, and how each is asked.
        """
        if len(batch.input_ids) > MOST_TOKENS or batch.input_ids.device.type != "cpu":
            return None
        key = threading.get_ident(), tuple(heads)
        if key not in self._made:
            try:
                if not _are_laid([self._backbone, *(head for head, _ in heads.values())]):
                    return None
                self._made[key] = traced(self._backbone, [read for _, read in heads.values()])
            except (HostShapeError, UntraceableError):
                self._made[key] = None
        program = self._made[key]
        return None if program is None else program.run(batch)


def _are_laid(modules: Iterable[nn.Module]) -> bool:
    """Whether the products' weights stay where they are from now on.

    Raises:
        UntraceableError: some products are not by our own kernel.
    """
    products = (part for module in modules for part in module.modules() if isinstance(part, Linear))
    weights = [part.packed for part in products]
    rows = [weight for weight in weights if isinstance(weight, RowWeight)]
    if len(rows) < len(weights):
        raise UntraceableError("a product is by a library's kernel")
    return all(weight.laid for weight in rows)


class Result(NamedTuple):
    """What a program gives.

    Attributes:
        of_sequences: whether it has a row for each sequence, and not for each token. width: of a row.
        place: the word of a step that says where it is written.
    """

    of_sequences: bool
    width: int
    place: tuple[int, int]


class Program:
    """A pass over any batch of at most `MOST_TOKENS`.

    Args:
        steps: its functions, and what they were given for another batch.
        results: what some of them wrote.
        arena: what they compute in.

    Raises:
        UntraceableError: a result is something else than what a step wrote last.
    """

    def __init__(self, steps: Sequence[tuple[Compiled, StepWords]], results: Sequence[Tensor], arena: Arena) -> None:
        self._arena = arena
        self._functions = [function for function, _ in steps]  # which hold their code
        calls = [words for _, words in steps]
        kinds = [(type(words), getattr(words, "rows", MOST_TOKENS) == _SEQUENCES) for words in calls]
        order = sorted(range(len(steps)), key=lambda i: kinds.index(kinds[i]))  # so that kinds lie together
        longest = max(len(words._fields) for words in calls)
        self._blank = np.array([[*calls[i], *[0] * (longest - len(calls[i]._fields))] for i in order])
        self._words = self._blank.copy()
        self._fits, start = [], 0
        for kind, of_sequences in dict.fromkeys(kinds):
            stop = start + kinds.count((kind, of_sequences))
            self._fits.append((kind.fit, self._words[start:stop, : len(kind._fields)], of_sequences))
            start = stop
        places = np.argsort(order).tolist()
        self._table = np.array([self._addresses(*step, place) for step, place in zip(steps, places, strict=True)])
        self._results = [_result(result, calls, places) for result in results]

    def _addresses(self, function: Compiled, words: StepWords, place: int) -> tuple[int, int, int]:
        """Return the three words that `ProgramWords.steps` has for a step whose words lie in that row."""
        address = self._words[place].ctypes.data
        return function.address, address, address + words._fields.index("units") * self._words.itemsize

    def run(self, batch: PackedBatch) -> list[Tensor]:
        """Return the results for a batch, in memory of their own."""
        lookups, extents, spans = batch.lookups, batch.extents, batch.pooled_spans
        cores, count = torch.get_num_threads(), len(extents)
        given = Given(lookups.tokens, count, extents.ctypes.data, spans.ctypes.data, lookups, cores)
        np.copyto(self._words, self._blank)
        for fit, words, of_sequences in self._fits:
            fit(words, given._replace(tokens=count) if of_sequences else given)
        results = []
        for result in self._results:
            results.append(torch.empty(count if result.of_sequences else lookups.tokens, result.width))
            self._words[result.place] = results[-1].data_ptr()
        together(program_kernel(), ProgramWords(self._table.ctypes.data, len(self._table), units=cores))
        return results


def _result(result: Tensor, calls: Sequence[StepWords], places: Sequence[int]) -> Result:
    address = result.data_ptr()
    last = max((i for i, words in enumerate(calls) if address in words), default=None)
    if last is None or getattr(calls[last], "y", None) != address:
        raise UntraceableError("a result is read again, or is no step's own")
    return Result(len(result) == _SEQUENCES, result.shape[1], (places[last], calls[last]._fields.index("y")))


def traced(backbone: nn.Module, reads: Sequence[Read]) -> Program:
    """Return a pass that gives what some heads make of the backbone's states, or, without any, the states.

    Raises:
        HostShapeError, UntraceableError: there is none that would hold for other batches.
    """
    ones = [TokenSequence(np.zeros(1, np.int64))] * (_SEQUENCES - 1)
    batch = _AnyBatch.of([*ones, TokenSequence(np.zeros(MOST_TOKENS - len(ones), np.int64))])
    arena = _OWN.arena
    with noted() as steps, _Tracing(arena):
        states = backbone(batch)
        results = [read(states, batch) for read in reads] or [states]
    for _, words in steps:
        if not hasattr(words, "fit") or getattr(words, "rows", MOST_TOKENS) not in (MOST_TOKENS, _SEQUENCES):
            raise UntraceableError("some rows are not the batch's, or a function cannot be told of another batch")
    return Program(cast(list[tuple[Compiled, StepWords]], steps), results, arena)


class _AnyBatch(ShapelessBatch):
    """As many tokens as any batch has, of sequences that are not known."""

    @property
    def extents(self) -> Any:
        """Of so many sequences, and nothing more."""
        return np.zeros((_SEQUENCES, 3), np.int64)

    pooled_spans = extents


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
