"""Packed batches: sequences laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.nn.jit.words import Lookups
from tercet.nn.layout import Layout
from tercet.nn.room import Arrays, Room
from tercet.nn.transfer import upload

_NO_KIND = torch.zeros(1, dtype=torch.int64)  # the type of every token where none is told


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One tokenised text, special tokens included, and which of its tokens each head may use.

    Attributes:
        input_ids: (L,) int64.
        token_types: (L,) int64, or None for all zero.
        attended: how many leading tokens may be attended to; all L, but for ColBERT's expanded queries.
        pooled_from: the first token that dense pooling counts; later than 0 where the prompt is left out.
        kept: (L,) bool, the tokens whose vectors a multivector keeps, or None for all.
        truncated: whether the text was cut to fit the model.
    """

    input_ids: NDArray[np.int64]
    token_types: NDArray[np.int64] | None = None
    attended: int | None = None
    pooled_from: int = 0
    kept: NDArray[np.bool_] | None = None
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring sequences of equal shape, which attention computes as one dense block.

    Attributes:
        start: first packed token. count: sequences. length: tokens of each.
        attended: leading tokens of each that may be attended to.
    """

    start: int
    count: int
    length: int
    attended: int

    @property
    def stop(self) -> int:
        """One past the last packed token."""
        return self.start + self.count * self.length


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """B sequences of T tokens in all, on one device. Host-side copies of the shape avoid device synchronisation.

    Attributes:
        input_ids: (T,) int64. positions: (T,) int64, from 0 in each sequence.
        token_types: (T,) int64, or None for all zero.
        cu_seqlens: (B + 1,) int32, sequence b is tokens `cu_seqlens[b]:cu_seqlens[b + 1]`.
        pool_mask: (T,) bool, False where dense pooling skips a token; None when it skips none.
        sequences: the sequences themselves, on the host.
        filler: how many of them, at the end, are there only to make up a number of tokens; nobody reads their states.
        key_counts: (B,) int32, on a GPU: leading tokens of each sequence that may be attended to.
        query_blocks: (n, 2) int32, on a GPU: which queries attention computes together; see `room.Arrays`.
        room: on a GPU, the size that all of the batch lies in, in one `block` of bytes; None for a large batch.
    """

    input_ids: Tensor
    positions: Tensor
    token_types: Tensor | None
    cu_seqlens: Tensor
    pool_mask: Tensor | None
    sequences: Sequence[TokenSequence]
    filler: int = 0
    key_counts: Tensor | None = None
    query_blocks: Tensor | None = None
    room: Room | None = None
    block: Tensor | None = None

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence], device: torch.device | str = "cpu") -> PackedBatch:
        """Return the sequences packed in the given order; each must hold at least one token."""
        assert sequences and min(map(len, sequences)) > 0, "a batch needs sequences of at least one token"
        device, arrays, pool_mask = torch.device(device), _arrays(sequences), None
        if any(s.pooled_from for s in sequences):
            pool_mask = _sent(np.concatenate([np.arange(len(s)) >= s.pooled_from for s in sequences]), device)
        if device.type == "cuda":
            return cls._in_a_room(arrays, pool_mask, sequences, device)
        types = None if arrays.token_types is None else _sent(arrays.token_types, device)
        ids, positions = _sent(arrays.input_ids, device), _sent(arrays.positions, device)
        return cls(ids, positions, types, _sent(arrays.cu_seqlens, device), pool_mask, sequences)

    @classmethod
    def _in_a_room(
        cls, arrays: Arrays, pool_mask: Tensor | None, sequences: Sequence[TokenSequence], device: torch.device
    ) -> PackedBatch:
        tokens, count = len(arrays.input_ids), len(sequences)
        arrays = arrays.for_attention([len(s) if s.attended is None else s.attended for s in sequences])
        masked = any(s.attended is not None for s in sequences)
        room = Room.holding(tokens, count, max(map(len, sequences)), masked)
        laid = (arrays if room is None else room.laid(arrays)).present
        layout = Layout.of(laid) if room is None else room.layout
        block = upload(laid, layout, device)
        cu_seqlens, ids, positions, *types, key_counts, query_blocks = layout.views(block)
        return cls(
            ids[:tokens],
            positions[:tokens],
            types[0][:tokens] if arrays.token_types is not None else None,
            cu_seqlens[: count + 1],
            pool_mask,
            sequences,
            key_counts=key_counts[:count],
            query_blocks=query_blocks,
            room=room,
            block=block,
        )

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence."""
        return tuple(len(s) for s in self.sequences)

    @cached_property
    def max_seqlen(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def attended(self) -> tuple[int, ...] | None:
        """Leading tokens of each sequence that may be attended to, or None when all may."""
        if all(s.attended is None for s in self.sequences):
            return None
        return tuple(len(s) if s.attended is None else s.attended for s in self.sequences)

    @cached_property
    def attended_index(self) -> tuple[Tensor, Tensor]:
        """(A,) int64 packed tokens that may be attended to, and (B + 1,) int32 where each sequence's begin."""
        assert self.attended is not None
        seen = np.concatenate([np.arange(n) < keys for n, keys in zip(self.lengths, self.attended, strict=True)])
        starts = np.array([0, *accumulate(self.attended)], np.int32)
        device = self.input_ids.device
        return _sent(np.flatnonzero(seen), device), _sent(starts, device)

    @cached_property
    def lengths_tensor(self) -> Tensor:
        """(B,) int64 tokens of each sequence, on the device."""
        return self.cu_seqlens.diff().long()

    @cached_property
    def sequence_index(self) -> Tensor:
        """(T,) int64: the sequence that each packed token belongs to."""
        rows = torch.arange(len(self.cu_seqlens) - 1, device=self.input_ids.device)
        return torch.repeat_interleave(rows, self.lengths_tensor, output_size=len(self.input_ids))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The batch as runs of equal sequences; sort the sequences by length to make them few."""
        return tuple(_runs(self.sequences))

    @cached_property
    def real_runs(self) -> tuple[Run, ...]:
        """The same without filler."""
        return tuple(_runs(self.sequences[: len(self.sequences) - self.filler])) if self.filler else self.runs

    @cached_property
    def extents(self) -> NDArray[np.int64]:
        """(B, 3), filler left out: each sequence's first packed token, length, and tokens attended to; on a CPU."""
        if len(self.sequences) == 1:  # a lone query
            return np.array([(0, *self.lengths, *(self.attended or self.lengths))], np.int64)
        ends = self.cu_seqlens.numpy()[: len(self.sequences) - self.filler + 1]
        extents = np.empty((len(ends) - 1, 3), np.int64)
        extents[:, 0], extents[:, 1] = ends[:-1], np.diff(ends)
        extents[:, 2] = extents[:, 1] if self.attended is None else self.attended[: len(extents)]
        return extents

    @cached_property
    def lookups(self) -> Lookups:
        """The batch for `compiled_rows.embed`; on a CPU, and only while the batch lives."""
        kinds = _NO_KIND if self.token_types is None else self.token_types
        ids, positions = self.input_ids, self.positions
        return Lookups(
            tokens=len(ids),
            ids=ids.data_ptr(),
            positions=positions.data_ptr(),
            kinds=kinds.data_ptr(),
            kinds_step=0 if self.token_types is None else 1,
            largest_id=_largest(ids),
            largest_position=_largest(positions),
            largest_kind=0 if self.token_types is None else _largest(kinds),
        )

    @cached_property
    def first_pooled(self) -> Tensor:
        """(B,) int64: each sequence's first packed token that dense pooling counts, its very first if none does."""
        first = self.cu_seqlens[:-1].long()
        if self.pool_mask is None:
            return first
        starts = [s.pooled_from if s.pooled_from < len(s) else 0 for s in self.sequences]
        return first + _sent(np.array(starts), first.device)

    @cached_property
    def pooled_spans(self) -> NDArray[np.int64]:
        """(B, 3), on a CPU: each sequence's first packed token that pooling counts (or its very first); how many."""
        if self.pool_mask is None:
            return self.extents
        spans, left_out = self.extents.copy(), np.array([s.pooled_from for s in self.sequences])
        spans[:, 0] += np.where(left_out < spans[:, 1], left_out, 0)
        spans[:, 1] = np.maximum(spans[:, 1] - left_out, 0)
        return spans

    def filled(self, tokens: int) -> PackedBatch:
        """Return the batch with filler sequences at its end, `tokens` in all; the states of filler mean nothing."""
        missing = tokens - len(self.input_ids)
        lengths = [min(self.max_seqlen, missing - done) for done in range(0, missing, self.max_seqlen)]
        filler = [TokenSequence(np.zeros(n, np.int64)) for n in lengths]
        if not filler:
            return self
        return replace(PackedBatch.of([*self.sequences, *filler], self.input_ids.device), filler=len(filler))


def _arrays(sequences: Sequence[TokenSequence]) -> Arrays:
    if len(sequences) == 1:  # a lone query, for which this takes 40 µs and the rest 105
        (one,) = sequences
        types = None if one.token_types is None else np.array(one.token_types)
        return Arrays(np.array((0, len(one)), np.int32), np.array(one.input_ids), np.arange(len(one)), types)
    cu_seqlens = np.array([0, *accumulate(map(len, sequences))], np.int32)
    positions = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    typed = any(s.token_types is not None for s in sequences)
    ids = np.concatenate([s.input_ids for s in sequences])
    return Arrays(cu_seqlens, ids, positions, np.concatenate([_types(s) for s in sequences]) if typed else None)


def _largest(numbers: Tensor) -> int:
    """Return the largest number, or one below 0 if there is any: as a row of a table that is no less wrong."""
    return int(numbers.numpy().view(np.uint64).max().view(np.int64))


def _types(sequence: TokenSequence) -> NDArray[np.int64]:
    return np.zeros(len(sequence), np.int64) if sequence.token_types is None else sequence.token_types


def _sent(array: NDArray[np.generic], device: torch.device) -> Tensor:
    here = torch.from_numpy(array)
    return here if device.type == "cpu" else here.to(device, non_blocking=True)


def _runs(sequences: Sequence[TokenSequence]) -> Iterator[Run]:
    start = 0
    shapes = ((len(s), len(s) if s.attended is None else s.attended) for s in sequences)
    for (length, attended), group in groupby(shapes):
        run = Run(start, sum(1 for _ in group), length, attended)
        yield run
        start = run.stop
