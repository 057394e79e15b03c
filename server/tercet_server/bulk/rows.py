"""`Row`: one line of an input; `chunks` of them carry a digest of all rows so far."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from tercet.errors import InvalidInputError

_MAX_CHARACTERS = 4_000_000  # of one chunk, however few rows that is


class Row(NamedTuple):
    """A text, its id if it has one, and the query to score it against; `fraction` of the input lies behind it."""

    text: str
    id: str | None = None
    query: str | None = None
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows.

    Attributes:
        first: the number of its first row, from 0.
        digest: of all rows of the input up to the last one here; equal digests mean equal rows.
    """

    first: int
    rows: list[Row]
    digest: bytes


class Reading:
    """Takes an input's rows in order, some to be checked and the rest in chunks."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self._hash = hashlib.blake2b(digest_size=32)
        self._done = 0

    def skip(self, count: int, digest: bytes) -> None:
        """Pass over rows that were done before.

        Raises:
            InvalidInputError: they are not the same rows; the input has changed since.
        """
        for row in islice(self._rows, count):
            self._add(row)
        if self._done < count or self._hash.digest() != digest:
            raise InvalidInputError(
                f"the input has changed: its first {count:,} rows are not those that were done before; give the same "
                "input, or --overwrite to start anew"
            )

    def at_end(self) -> bool:
        """Whether no row is left; takes one if there is."""
        return next(self._rows, None) is None

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the rest in chunks of at most `size` rows, fewer where texts are long."""
        while rows := list(self._take(size)):
            yield Chunk(self._done - len(rows), rows, self._hash.digest())

    def _take(self, size: int) -> Iterator[Row]:
        characters = 0
        for row in islice(self._rows, size):
            self._add(row)
            yield row
            characters += len(row.text)
            if characters >= _MAX_CHARACTERS:
                return

    def _add(self, row: Row) -> None:
        for value in (row.text, row.id, row.query):
            data = b"" if value is None else value.encode("utf-8", "surrogatepass")
            self._hash.update(b"%d:" % (-1 if value is None else len(data)))
            self._hash.update(data)
        self._done += 1
