"""Columns: rows as they arrive from batches, in any order, to the columnar results that callers get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tercet.engine.pool_tokens import pool_tokens
from tercet.engine.requests import EncodeRequest
from tercet.nn.activations import activated
from tercet.nn.model import LOGITS
from tercet.quantize import quantize, quantize_multivector, shorten
from tercet.types import MultiVectorBatch, Output, Quantization, SparseBatch, SparseVector

Indices = NDArray[np.int64]


class DenseColumn:
    """(n, d) vectors in the requested type, allocated once and filled in place."""

    def __init__(self, size: int, request: EncodeRequest, normalized: bool) -> None:
        self._size, self._request, self._normalized = size, request, normalized
        self.values: NDArray[Any] | None = None
        self.quantization: Quantization | None = None

    def put(self, indices: Indices, rows: Sequence[NDArray[np.float32]]) -> None:
        """Keep the vectors of some items."""
        vectors = np.asarray(rows, np.float32)
        if self._request.dimensions is not None:
            vectors = shorten(vectors, self._request.dimensions, renormalize=self._normalized)
        values, quantization = quantize(vectors, self._request.output_dtype)
        if self.values is None:
            self.values = np.empty((self._size, values.shape[1]), values.dtype)
            if quantization is not None:
                self.quantization = Quantization(np.empty(self._size, np.float32), np.empty(self._size, np.float32))
        places = slice(indices[0], indices[0] + 1) if len(indices) == 1 else indices  # without a copy by index
        self.values[places] = values
        if self.quantization is not None and quantization is not None:
            self.quantization.scale[indices] = quantization.scale
            self.quantization.offset[indices] = quantization.offset


class SparseColumn:
    """Lexical vectors, each cut to its `top_k` largest weights if asked."""

    def __init__(self, size: int, request: EncodeRequest, dims: int) -> None:
        self._rows: list[SparseVector | None] = [None] * size
        self._top_k, self._dims = request.top_k, dims

    def put(self, indices: Indices, rows: Sequence[SparseVector]) -> None:
        """Keep the vectors of some items."""
        for index, row in zip(indices, rows, strict=True):
            self._rows[index] = row if self._top_k is None else largest(row, self._top_k)

    def batch(self) -> SparseBatch:
        """Return all vectors as one batch."""
        return SparseBatch.from_rows([row for row in self._rows if row is not None], self._dims)


class MultiVectorColumn:
    """Token matrices, pooled, shortened and quantised as asked, item by item."""

    def __init__(self, size: int, request: EncodeRequest) -> None:
        self._rows: list[MultiVectorBatch | None] = [None] * size
        self._request = request

    def put(self, indices: Indices, rows: Sequence[NDArray[np.float32]]) -> None:
        """Keep the matrices of some items."""
        request = self._request
        for index, row in zip(indices, rows, strict=True):
            # A copy, since a row is a view into its whole batch.
            matrix = pool_tokens(row, request.pool_factor) if request.pool_factor else np.array(row, np.float32)
            if request.dimensions is not None:
                matrix = shorten(matrix, request.dimensions, renormalize=True)
            one = MultiVectorBatch.from_rows([matrix], matrix.shape[1])
            self._rows[index] = quantize_multivector(one, request.output_dtype)

    def batch(self) -> MultiVectorBatch:
        """Return all matrices packed into one batch."""
        rows = [row for row in self._rows if row is not None]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row.values) for row in rows], out=offsets[1:])
        scales = [row.quantization for row in rows if row.quantization is not None]
        quantization = None
        if scales:
            quantization = Quantization(
                np.concatenate([q.scale for q in scales]), np.concatenate([q.offset for q in scales])
            )
        return MultiVectorBatch(np.concatenate([row.values for row in rows]), offsets, quantization)


class EmbeddingColumns:
    """The columns of one encode call, one per output."""

    def __init__(self, size: int, request: EncodeRequest, dims: Mapping[str, int], normalized: bool) -> None:
        makers: dict[Output, Callable[[], Any]] = {
            "dense": lambda: DenseColumn(size, request, normalized),
            "sparse": lambda: SparseColumn(size, request, dims["sparse"]),
            "multivector": lambda: MultiVectorColumn(size, request),
        }
        self._columns = {output: makers[output]() for output in request.outputs}

    def put(self, indices: Indices, rows: Mapping[str, Sequence[Any]]) -> None:
        """Keep, per output, the rows of the items at `indices`."""
        for output, column in self._columns.items():
            column.put(indices, rows[output])

    def fields(self) -> dict[str, Any]:
        """Return the columns as the fields of `types.Embeddings`."""
        fields: dict[str, Any] = {}
        for output, column in self._columns.items():
            if output == "dense":
                fields |= {"dense": column.values, "quantization": column.quantization}
            else:
                fields[output] = column.batch()
        return fields


class ScoreColumn:
    """(n,) float32 scores of a cross-encoder.

    Attributes:
        output: what is read off it: its logits, where another activation than its own is asked for.
    """

    def __init__(self, size: int, own: str | None = None, asked: str | None = None) -> None:
        self.values = np.empty(size, np.float32)
        keeps = asked is None or asked == (own or "identity")
        self.output = "score" if keeps else LOGITS
        self._activation = None if keeps or asked == "identity" else asked

    def put(self, indices: Indices, rows: Mapping[str, Sequence[Any]]) -> None:
        """Keep the scores of some items."""
        values = np.asarray(rows[self.output], np.float32).reshape(len(indices))
        self.values[indices] = activated(torch.from_numpy(values), self._activation).numpy()


def largest(vector: SparseVector, k: int) -> SparseVector:
    """Return the k largest weights, ties by the lower index, still in ascending order of index."""
    if len(vector) <= k:
        return vector
    kept = np.sort(np.argsort(-vector.values, kind="stable")[:k])
    return SparseVector(vector.indices[kept], vector.values[kept])
