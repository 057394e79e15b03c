"""Programs: a backbone's passes on a CPU as one call of compiled code.

Called one by one, the sixty functions of a pass cost the interpreter as much as the work in them costs few tokens, and
as many turns at its lock. So a pass is traced once: its functions are noted and not run. See docs/adr/0014-programs.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tercet.nn import helpers
from tercet.nn.arena import Arena
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.jit.code import Compiled
from tercet.nn.jit.links import BY_SEQUENCE, LINKS, Given
from tercet.nn.jit.product_kernel import blocks_of
from tercet.nn.jit.program_kernel import ProgramWords, links_kernel, program_kernel
from tercet.nn.jit.row_kernels import EmbedWords
from tercet.nn.jit.rows import units_of
from tercet.nn.jit.tile_product import TileProductWords
from tercet.nn.jit.words import Words
from tercet.nn.linear import Linear
from tercet.nn.shapeless import HostShapeError, ShapelessBatch
from tercet.nn.team import Step, noted

# Of a batch; in float32 on a CPU an engine makes none with more than 1,024 of either, unless of one sequence.
# Primes: so many rows of a step are the batch's tokens, or its sequences, and not by chance something else.
MOST_TOKENS, MOST_SEQUENCES = 1_039, 1_031
_ALLOCATIONS = {torch.ops.aten.empty, torch.ops.aten.new_empty, torch.ops.aten.empty_like}
# One trace at a time: torch makes an operator's object when a trace first meets it, and of two that two threads make it
# keeps one and remembers where the other was.
_TRACING = threading.Lock()

Read = Callable[[Tensor, PackedBatch], Tensor]  # states (T, H) → what a head makes of them


class UntraceableError(Exception):
    """A model computes by something else than functions that can be noted."""


class Programs:
    """The programs of one model, made as its batches come; a thread runs those that it made itself, or of its seat.

    Attributes:
        wanted: False until the backbone has run once function by function, and has made what it makes once: a table of
            angles, for instance, which cannot be made while it is traced.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone, self.wanted = backbone, False
        self._made: dict[tuple[Seat, tuple[str, ...]], Program | None] = {}

    def known(self, seat: Seat, outputs: Sequence[str], tokens: int) -> bool:
        """Whether a batch of so many tokens is one program there, made before, with what the heads of outputs do."""
        return tokens <= MOST_TOKENS and self._made.get((seat, tuple(outputs))) is not None

    def clear(self) -> None:
        """Forget those made, which hold addresses of weights; nobody may be using the model."""
        self._made.clear()

    def run(self, batch: PackedBatch, heads: Mapping[str, tuple[nn.Module, Read]]) -> list[Tensor] | None:
        """Return what each head makes of the batch, or its (T, H) states without any; None if there is no program.

        Args:
            batch: of any device.
            heads: by name, and how each is asked.
        """
        if not self.wanted or batch.input_ids.device.type != "cpu":
            return None
        if len(batch.input_ids) > MOST_TOKENS or len(batch.sequences) > MOST_SEQUENCES:
            return None
        key = own_seat(), tuple(heads)
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
    laid = [None if part.packed is None else part.packed.laid for part in products]
    if None in laid:
        raise UntraceableError("a product is by a library's kernel")
    return all(laid)


class Result(NamedTuple):
    """What a program gives: a row for each sequence, or for each token."""

    of_sequences: bool
    width: int


class Program:
    """A pass over any batch of at most `MOST_TOKENS` and `MOST_SEQUENCES`.

    Args:
        steps: its functions, and what they were given for another batch.
        results: what some of them wrote.
        arena: what they compute in.

    Raises:
        UntraceableError: a result is something else than what a step wrote last.
    """

    def __init__(self, steps: Sequence[Step], results: Sequence[Tensor], arena: Arena) -> None:
        self._arena = arena
        self._functions = [function for function, _ in steps]  # which hold their code
        self._lookups = [words for _, words in steps if isinstance(words, EmbedWords)]
        self._panels = max(getattr(words, "panels", 1) for _, words in steps)
        self._results = [Result(len(result) == MOST_SEQUENCES, result.shape[1]) for result in results]
        calls = [words for _, words in steps]
        longest = max(len(words._fields) for words in calls)
        self._words = np.array([[*words, *[0] * (longest - len(words._fields))] for words in calls])
        self._values = np.zeros(len(Given._fields) + len(results), np.int64)
        links = [link for row, words in enumerate(calls) for link in self._links(row, words)]
        for result, written in enumerate(results, len(Given._fields)):
            row, word = _written(written, calls)
            links.append((self._address(row, word), result, 1))
        self._linked, self._table = (
            np.array(links),
            np.array([self._step(row, *step) for row, step in enumerate(steps)]),
        )
        self._link_words = np.array([self._linked.ctypes.data, len(links), self._values.ctypes.data])

    def _address(self, row: int, word: int) -> int:
        return int(self._words.ctypes.data) + row * self._words.strides[0] + word * self._words.itemsize

    def _step(self, row: int, function: Compiled, words: Words) -> tuple[int, int, int]:
        """Return the three words that `ProgramWords.steps` has for a step."""
        return function.address, self._address(row, 0), self._address(row, words._fields.index("units"))

    def _links(self, row: int, words: Words) -> Iterator[tuple[int, int, int]]:
        """Yield the links of a step's words to a batch, and those that make it begin anew."""
        for name, source, factor in LINKS[type(words)]:
            source = BY_SEQUENCE.get(source, source) if getattr(words, "rows", None) == MOST_SEQUENCES else source
            times = 1 if factor is None else getattr(words, factor)
            yield self._address(row, words._fields.index(name)), Given._fields.index(source), times
        for name in ("next", "done"):
            yield self._address(row, words._fields.index(name)), 0, 0

    def run(self, batch: PackedBatch) -> list[Tensor]:
        """Return the results for a batch, in memory of their own.

        Raises:
            IndexError: a table lacks a row that the batch asks for.
        """
        asked, extents, spans = batch.lookups, batch.extents, batch.pooled_spans
        for lookup in self._lookups:
            lookup.check(asked)
        tokens, count = asked.tokens, len(extents)
        # A core more than the largest product has units would only wait.
        cores = min(_OWN.cores or torch.get_num_threads(), self._panels * blocks_of(tokens))
        # Memory of numpy's, since torch lets go of the interpreter's lock for its own, and a busy thread may take it.
        shapes = [(count if of_sequences else tokens, width) for of_sequences, width in self._results]
        results = [torch.from_numpy(np.empty(shape, np.float32)) for shape in shapes]
        given = Given(
            *(tokens, units_of(tokens), blocks_of(tokens), TileProductWords.blocks_of(tokens)),
            *(count, units_of(count), blocks_of(count), TileProductWords.blocks_of(count)),
            *(extents.ctypes.data, spans.ctypes.data),
            *(asked.ids, asked.positions, asked.kinds, asked.kinds_step),
            cores,
        )
        self._values[:] = *given, *(result.data_ptr() for result in results)
        links_kernel().run_held(self._link_words.ctypes.data)
        words = np.array(ProgramWords(self._table.ctypes.data, len(self._table), units=cores))
        helpers.HELPERS.run(program_kernel(), words.ctypes.data, cores)
        return results


def _written(result: Tensor, calls: Sequence[Words]) -> tuple[int, int]:
    """Return the step that writes a result, and its word that says where."""
    address = result.data_ptr()
    last = max((i for i, words in enumerate(calls) if address in words), default=None)
    if last is None or getattr(calls[last], "y", None) != address:
        raise UntraceableError("a result is read again, or is no step's own")
    return last, calls[last]._fields.index("y")


def traced(backbone: nn.Module, reads: Sequence[Read]) -> Program:
    """Return a pass that gives what some heads make of the backbone's states, or, without any, the states.

    Raises:
        HostShapeError, UntraceableError: there is none that would hold for other batches.
    """
    ones = [TokenSequence(np.zeros(1, np.int64))] * (MOST_SEQUENCES - 1)
    batch = _AnyBatch.of([*ones, TokenSequence(np.zeros(MOST_TOKENS - len(ones), np.int64))])
    arena = own_seat()
    with _TRACING, noted() as steps, _Tracing(arena):
        states = backbone(batch)
        results = [read(states, batch) for read in reads] or [states]
    for _, words in steps:
        if type(words) not in LINKS or getattr(words, "rows", MOST_TOKENS) not in (MOST_TOKENS, MOST_SEQUENCES):
            raise UntraceableError("some rows are not the batch's, or a function cannot be told of another batch")
    return Program(steps, results, arena)


class _AnyBatch(ShapelessBatch):
    """As many tokens as any batch has, of sequences that are not known."""

    @property
    def extents(self) -> Any:
        """Of so many sequences, and nothing more."""
        return np.zeros((MOST_SEQUENCES, 3), np.int64)

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


Seat = Arena  # where one batch at a time is computed, by whichever thread: its programs and their memory


class _Own(threading.local):
    """What a thread's programs share, of whatever models, since it runs one at a time.

    Attributes:
        cores: with how many it runs them, or None for as many as torch's operations.
    """

    cores: int | None = None

    def __init__(self) -> None:
        self.seat = Seat()


_OWN = _Own()


def own_seat() -> Seat:
    """Return where the calling thread computes."""
    return _OWN.seat


@contextmanager
def seated(seat: Seat, cores: int) -> Iterator[None]:
    """Have the calling thread compute programs in another's seat, left by that one meanwhile, with so many cores."""
    before = _OWN.seat, _OWN.cores
    _OWN.seat, _OWN.cores = seat, cores
    try:
        yield
    finally:
        _OWN.seat, _OWN.cores = before
