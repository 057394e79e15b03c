"""Vectors as Arrow columns and back, over the memory that holds them already."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tercet.errors import InvalidInputError
from tercet.types import MultiVectorBatch, Output, SparseBatch

COLUMNS: dict[Output, str] = {"dense": "vector", "sparse": "sparse", "multivector": "multivector"}
# Asked which rows hold a term: LanceDB 0.40 builds an index on a struct's field and then never uses it.
SPARSE_INDICES = "sparse_indices"

SPARSE_TYPE = pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])

# What LanceDB can search: packed bits by hamming distance, int8 not at all.
VALUE_TYPES: dict[Output, dict[str, pa.DataType]] = {
    "dense": {"float32": pa.float32(), "float16": pa.float16(), "ubinary": pa.uint8()},
    "multivector": {"float32": pa.float32(), "float16": pa.float16()},
    "sparse": {"float32": pa.float32()},
}

_LIST_LIMIT = np.iinfo(np.int32).max
_SPARSE_DIMS = 1 << 32


def dense_column(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """Return (n, d) vectors as `fixed_size_list<d>` over their own memory."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def multivector_column(batch: MultiVectorBatch) -> pa.ListArray:
    """Return token matrices as `list<fixed_size_list<d>>` over their own memory; only the offsets are new.

    Raises:
        InvalidInputError: more tokens than one Arrow list column holds.
    """
    return pa.ListArray.from_arrays(_offsets(batch.offsets), dense_column(batch.values))


def sparse_column(batch: SparseBatch) -> pa.StructArray:
    """Return lexical vectors as `struct<indices: list<uint32>, values: list<float32>>` over their own memory.

    Raises:
        InvalidInputError: more weights than one Arrow list column holds.
    """
    offsets = _offsets(batch.indptr)
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (batch.indices, batch.values)]
    return pa.StructArray.from_arrays(lists, fields=list(SPARSE_TYPE))


def vector_columns(vectors: dict[Output, Any]) -> dict[str, pa.Array]:
    """Return the columns of a table for what `VectorSpec.encode` made."""
    columns: dict[str, pa.Array] = {}
    if (dense := vectors.get("dense")) is not None:
        columns[COLUMNS["dense"]] = dense_column(dense)
    if (sparse := vectors.get("sparse")) is not None:
        columns[COLUMNS["sparse"]] = sparse_column(sparse)
        columns[SPARSE_INDICES] = columns[COLUMNS["sparse"]].field("indices")
    if (multivector := vectors.get("multivector")) is not None:
        columns[COLUMNS["multivector"]] = multivector_column(multivector)
    return columns


def multivectors(column: pa.Array | pa.ChunkedArray) -> MultiVectorBatch:
    """Return a column's token matrices, over its memory where it is one chunk; a null is a matrix without tokens.

    Raises:
        InvalidInputError: the column is not `list<fixed_size_list>`.
    """
    whole = _whole(column)
    if not pa.types.is_list(whole.type) or not pa.types.is_fixed_size_list(whole.type.value_type):
        raise InvalidInputError(f"a column of {whole.type} holds no token vectors; list<fixed_size_list> does")
    tokens = whole.flatten()
    values = tokens.flatten().to_numpy(zero_copy_only=False).reshape(-1, tokens.type.list_size)
    return MultiVectorBatch(values, _lengths_as_offsets(whole))


def sparse_batch(column: pa.Array | pa.ChunkedArray) -> SparseBatch:
    """Return a column's lexical vectors, over its memory where it is one chunk; a null is a vector without weights."""
    indices, values = _whole(column).flatten()
    return SparseBatch(
        indptr=_lengths_as_offsets(indices),
        indices=indices.flatten().to_numpy(zero_copy_only=False),
        values=values.flatten().to_numpy(zero_copy_only=False),
        dims=_SPARSE_DIMS,
    )


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _lengths_as_offsets(lists: pa.ListArray) -> NDArray[np.int64]:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _offsets(offsets: NDArray[np.int64]) -> pa.Array:
    if offsets[-1] > _LIST_LIMIT:
        raise InvalidInputError(
            f"{offsets[-1]} values are more than the {_LIST_LIMIT} that one Arrow list column holds; "
            "make batches smaller"
        )
    return pa.array(offsets.astype(np.int32))
