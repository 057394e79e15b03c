"""`Records`: what a write is given, in Chroma's own shapes, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chromadb.api.types import maybe_cast_one_to_many, validate_ids

from tercet.errors import InvalidInputError

One = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """Columns of one length; a column that was not given is None."""

    ids: list[str]
    documents: list[str] | None = None
    metadatas: list[Any] | None = None
    embeddings: Sequence[Any] | None = None

    @classmethod
    def of(
        cls,
        ids: str | list[str],
        documents: str | list[str] | None,
        metadatas: Mapping[str, Any] | list[Any] | None,
        embeddings: Any = None,
    ) -> Records:
        """Return the columns; one value stands for a column of one.

        Raises:
            InvalidInputError: columns of different lengths.
            ValueError: ids that are none or not unique, as Chroma says it.
        """
        listed: dict[str, Any] = {
            "documents": maybe_cast_one_to_many(documents),
            "metadatas": maybe_cast_one_to_many(metadatas),
            "embeddings": embeddings,
        }
        keys: list[str] = validate_ids(maybe_cast_one_to_many(ids) or [])
        for name, column in listed.items():
            if column is not None and len(column) != len(keys):
                raise InvalidInputError(f"{len(column)} {name} for {len(keys)} ids; give one each")
        return cls(keys, **listed)

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int) -> Iterator[Records]:
        """Yield the records in parts of at most so many."""
        for first in range(0, len(self), size):
            yield self.at(range(first, min(first + size, len(self))))

    def at(self, positions: Sequence[int]) -> Records:
        """Return the records at these positions."""
        columns = (self.documents, self.metadatas, self.embeddings)
        return Records(
            [self.ids[i] for i in positions],
            *(None if column is None else [column[i] for i in positions] for column in columns),
        )
