"""Work that is shared out by rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tercet.nn.jit.code import Code
from tercet.nn.jit.values import Int
from tercet.nn.jit.words import Words

_ROWS = 8  # of a unit of work


class RowWords(Words, Protocol):
    """Words of a function that takes so many rows."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...


def units_of(rows: int) -> int:
    """Return how many units of work so many rows are."""
    return -(-rows // _ROWS)


@contextmanager
def each_row(code: Code, word: RowWords) -> Iterator[Int]:
    """Repeat what follows for each row, a unit of work at a time."""
    with code.shared_loop(word) as unit, rows_of(code, word, unit) as row:
        yield row


@contextmanager
def rows_of(code: Code, word: RowWords, unit: Int) -> Iterator[Int]:
    """Repeat what follows for each row of a unit of work."""
    first = unit * _ROWS
    with code.loop((first + _ROWS).least(code.word(word.rows)), start=first) as row:
        yield row
