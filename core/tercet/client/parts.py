"""Results of parts to the result of the whole, filled in place as they come, in memory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tercet.types import Embeddings, MultiVectorBatch, Quantization, Scores, SparseBatch, Timings

R = TypeVar("R")
Taken = TypeVar("Taken", contravariant=True)
Given = TypeVar("Given", covariant=True)


class Parts(Protocol[R]):
    """Where the results of parts go, in any order, and where the whole comes from."""

    def put(self, place: slice, part: R) -> None:
        """Keep the result of the items at `place`."""
        ...

    def whole(self) -> R:
        """Return the result of all items, once every part is there."""
        ...


class _Shared:
    """What embeddings and scores have in common."""

    def __init__(self, size: int) -> None:
        self.ids: list[str | None] = [None] * size
        self.tokens = np.empty(size, np.int32)
        self.truncated = np.empty(size, np.bool_)
        self.model, self.revision = "", None
        self.timings: Timings | None = None

    def put(self, place: slice, part: Any) -> None:
        self.ids[place] = part.ids
        self.tokens[place] = part.tokens
        self.truncated[place] = part.truncated
        self.model, self.revision = part.model, part.revision
        slowest = (timings for timings in (self.timings, part.timings) if timings is not None)
        self.timings = max(slowest, key=lambda timings: timings.total_ms, default=None)


class EmbeddingParts:
    """The embeddings of n items. Its `timings` are those of the slowest part."""

    def __init__(self, size: int) -> None:
        self._shared = _Shared(size)
        self._size = size
        self._dense: NDArray[Any] | None = None
        self._quantization: Quantization | None = None
        self._sparse: dict[int, SparseBatch] = {}
        self._multivector: dict[int, MultiVectorBatch] = {}

    def put(self, place: slice, part: Embeddings) -> None:
        """Keep the embeddings of the items at `place`."""
        self._shared.put(place, part)
        if part.dense is not None:
            if self._dense is None:
                self._dense = np.empty((self._size, part.dense.shape[1]), part.dense.dtype)
            self._dense[place] = part.dense
        if part.quantization is not None:
            if self._quantization is None:
                self._quantization = Quantization(np.empty(self._size, np.float32), np.empty(self._size, np.float32))
            self._quantization.scale[place] = part.quantization.scale
            self._quantization.offset[place] = part.quantization.offset
        if part.sparse is not None:
            self._sparse[place.start] = part.sparse
        if part.multivector is not None:
            self._multivector[place.start] = part.multivector

    def whole(self) -> Embeddings:
        """Return the embeddings of all items."""
        return Embeddings(
            **vars(self._shared),
            dense=self._dense,
            quantization=self._quantization,
            sparse=_joined_sparse(_in_order(self._sparse)),
            multivector=_joined_multivector(_in_order(self._multivector)),
        )


class ScoreParts:
    """The scores of n items, of which the `top_k` best are ranked."""

    def __init__(self, size: int, top_k: int | None) -> None:
        self._shared = _Shared(size)
        self._scores = np.empty(size, np.float32)
        self._top_k = top_k

    def put(self, place: slice, part: Scores) -> None:
        """Keep the scores of the items at `place`."""
        self._shared.put(place, part)
        self._scores[place] = part.scores

    def whole(self) -> Scores:
        """Return the scores of all items."""
        order = np.argsort(-self._scores, kind="stable")[: self._top_k]
        return Scores(**vars(self._shared), scores=self._scores, order=order)


def _in_order(parts: dict[int, R]) -> list[R]:
    return [parts[first] for first in sorted(parts)]


def _joined_sparse(parts: Sequence[SparseBatch]) -> SparseBatch | None:
    if not parts:
        return None
    return SparseBatch(
        indptr=_offsets([part.indptr for part in parts]),
        indices=np.concatenate([part.indices for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        dims=parts[0].dims,
    )


def _joined_multivector(parts: Sequence[MultiVectorBatch]) -> MultiVectorBatch | None:
    if not parts:
        return None
    steps = [part.quantization for part in parts if part.quantization is not None]
    return MultiVectorBatch(
        values=np.concatenate([part.values for part in parts]),
        offsets=_offsets([part.offsets for part in parts]),
        quantization=_joined_steps(steps) if steps else None,
    )


def _joined_steps(parts: Sequence[Quantization]) -> Quantization:
    return Quantization(np.concatenate([part.scale for part in parts]), np.concatenate([part.offset for part in parts]))


def _offsets(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return where rows begin in the parts' values put one after the other."""
    lengths = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
