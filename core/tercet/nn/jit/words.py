"""Words: the whole numbers that a compiled function is given, 64 bits each, one after the other in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

WordRows = NDArray[np.int64]  # (n, words), the words of n calls of one function


class Words(Protocol):
    """What a function is given, or which word is which; these come last of all."""

    @property
    def units(self) -> int:
        """Units of work, which threads that run the function share out."""
        ...

    @property
    def next(self) -> int:
        """The unit that is taken next, at first 0."""
        ...

    @property
    def done(self) -> int:
        """How many are done, at first 0."""
        ...

    def __iter__(self) -> Iterator[int]: ...


class StepWords(Words, Protocol):
    """Words of a function that can be told of another batch than the one it was first called for."""

    _fields: ClassVar[tuple[str, ...]]

    @staticmethod
    def fit(steps: WordRows, given: Given) -> None:
        """Write what belongs to a batch into the words of many calls."""
        ...


class Lookups(NamedTuple):
    """Which rows of a model's tables a batch asks for.

    Attributes:
        tokens: T.
        ids, positions: addresses of (T,) int64.
        kinds: address of the token types, or of one 0 for all, with a `kinds_step` of 0 instead of 1.
        largest_id, largest_position, largest_kind: of those.
    """

    tokens: int
    ids: int
    positions: int
    kinds: int
    kinds_step: int
    largest_id: int
    largest_position: int
    largest_kind: int


class Given(NamedTuple):
    """What differs between two batches for functions that compute both (`nn/programs.py`).

    Attributes:
        tokens: T. sequences: B. extents, spans: addresses of `PackedBatch.extents` and `pooled_spans`.
        lookups: see there. cores: that compute.
    """

    tokens: int
    sequences: int
    extents: int
    spans: int
    lookups: Lookups
    cores: int


def bits(value: float) -> int:
    """Return the bits of a float32, as `Code.scalar` takes it."""
    return ctypes.c_int32.from_buffer(ctypes.c_float(value)).value
