"""Batches of vectors, packed: sparse rows, token matrices, and the scales of quantised ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Quantization:
    """How integer values map back: `value ≈ integer · scale + offset`.

    Attributes:
        scale: (n,) float32, one step per vector, so that cosine similarity of int8 vectors needs no scale at all.
        offset: (n,) float32; zero for int8, −128·scale for uint8.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __getitem__(self, index: int | slice | NDArray[np.integer]) -> Quantization:
        """Return the scales and offsets of some of the vectors, as views where numpy can."""
        rows = slice(index, index + 1) if isinstance(index, int) else index
        return Quantization(self.scale[rows], self.offset[rows])


@dataclass(frozen=True, slots=True)
class SparseVector:
    """One lexical vector: strictly ascending uint32 `indices`, positive float32 `values`."""

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, slots=True)
class SparseBatch:
    """n lexical vectors in compressed rows: vector i lies in `[indptr[i]:indptr[i + 1]]` of `indices` and `values`.

    Attributes:
        indptr: (n + 1,) int64.
        indices: (nnz,) uint32, strictly ascending within a vector.
        values: (nnz,) float32, positive.
        dims: size of the index space, 2**32 for hashed terms.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    dims: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, i: int) -> SparseVector:
        i = row_position(i, len(self))
        rows = slice(self.indptr[i], self.indptr[i + 1])
        return SparseVector(self.indices[rows], self.values[rows])

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def from_rows(cls, rows: Sequence[SparseVector], dims: int) -> SparseBatch:
        """Return the vectors stacked; an empty sequence gives an empty batch."""
        empty = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
        return cls(
            indptr=_offsets([len(row) for row in rows]),
            indices=np.concatenate([empty.indices, *(row.indices for row in rows)]),
            values=np.concatenate([empty.values, *(row.values for row in rows)]),
            dims=dims,
        )


@dataclass(frozen=True, slots=True)
class MultiVectorBatch:
    """n token matrices, packed: matrix i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: (Σ tokens, d), in the requested output type; packed bits hold d / 8 bytes a row.
        offsets: (n + 1,) int64.
        quantization: per token, for int8 and uint8.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]
    quantization: Quantization | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> NDArray[Any]:
        i = row_position(i, len(self))
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def from_rows(cls, rows: Sequence[NDArray[np.float32]], dims: int) -> MultiVectorBatch:
        """Return the matrices packed into one; an empty sequence gives an empty batch."""
        return cls(np.concatenate([np.empty((0, dims), np.float32), *rows]), _offsets([len(row) for row in rows]))


def row_position(i: int, n: int) -> int:
    """Return a possibly negative row index counted from the front.

    Raises:
        IndexError: there is no such row.
    """
    if not -n <= i < n:
        raise IndexError(f"index {i} is out of range for {n} rows")
    return i % n


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
