"""Words: the whole numbers that a compiled function is given, 64 bits each, one after the other in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Words(Protocol):
    """What a function is given, or which word is which; these come last of all."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

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


class Lookups(NamedTuple):
    """Which rows of a model's tables a batch asks for.

    Attributes:
        tokens: T.
        ids, positions: addresses of (T,) int64.
        kinds: address of the token types, or of one 0 for all, with a `kinds_step` of 0 instead of 1.
        largest_id, largest_position, largest_kind: of those, or one below 0.
    """

    tokens: int
    ids: int
    positions: int
    kinds: int
    kinds_step: int
    largest_id: int
    largest_position: int
    largest_kind: int


def bits(value: float) -> int:
    """Return the bits of a float32, as `Code.scalar` takes it."""
    return ctypes.c_int32.from_buffer(ctypes.c_float(value)).value
