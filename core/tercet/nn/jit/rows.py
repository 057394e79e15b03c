"""Work that is shared out by rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from tercet.nn.jit.code import Code
from tercet.nn.jit.values import Int
from tercet.nn.jit.words import Given, WordRows, Words

_ROWS = 8  # of a unit of work


_Words = TypeVar("_Words")


class RowWords(Words, Protocol):
    """Words of a function that takes so many rows."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...


def units_of(rows: int) -> int:
    """Return how many units of work so many rows are."""
    return -(-rows // _ROWS)


def of_rows(words: type[_Words]) -> type[_Words]:
    """Give words of a function that takes a batch's rows, and knows of nothing else of the batch, their `fit`."""
    rows, units = (words._fields.index(name) for name in ("rows", "units"))  # type: ignore[attr-defined]

    def fit(steps: WordRows, given: Given) -> None:
        steps[:, rows], steps[:, units] = given.tokens, units_of(given.tokens)

    words.fit = staticmethod(fit)  # type: ignore[attr-defined]
    return words


@contextmanager
def each_row(code: Code, word: RowWords) -> Iterator[Int]:
    """Repeat what follows for each row, a unit of work at a time."""
    rows = code.word(word.rows)
    with code.shared_loop(word) as unit:
        first = unit * _ROWS
        with code.loop((first + _ROWS).least(rows), start=first) as row:
            yield row
