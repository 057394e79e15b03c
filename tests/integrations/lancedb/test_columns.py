"""Vectors as Arrow columns: the same memory, and the same vectors back from whatever a table returns."""

import numpy as np
import pyarrow as pa
import pytest

from tercet import InvalidInputError, MultiVectorBatch, SparseBatch, SparseVector
from tercet_lancedb.columns import (
    dense_column,
    multivector_column,
    multivectors,
    sparse_batch,
    sparse_column,
    vector_columns,
)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def tokens():
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    return MultiVectorBatch(values, np.array([0, 2, 2, 6], np.int64))


@pytest.fixture
def sparse():
    rows = [([3, 9], [0.5, 2.0]), ([], []), ([1, 4_000_000_000], [1.0, 0.25])]
    return SparseBatch.from_rows(
        [SparseVector(np.array(i, np.uint32), np.array(v, np.float32)) for i, v in rows], 1 << 32
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_dense_vectors_keep_their_memory(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    column = dense_column(values)
    assert column.type == pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), 4)
    assert column.values.buffers()[1].address == address(values)
    assert column.to_pylist() == values.tolist()


def test_token_vectors_keep_their_memory_there_and_back(tokens):
    column = multivector_column(tokens)
    assert column.type == pa.list_(pa.list_(pa.float32(), 4))
    assert column.values.values.buffers()[1].address == address(tokens.values)
    back = multivectors(column)
    assert address(back.values) == address(tokens.values)
    np.testing.assert_array_equal(back.offsets, tokens.offsets)


def test_sparse_vectors_keep_their_memory_there_and_back(sparse):
    column = sparse_column(sparse)
    assert column.type == pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])
    assert column.field("values").values.buffers()[1].address == address(sparse.values)
    back = sparse_batch(column)
    assert address(back.indices) == address(sparse.indices) and address(back.values) == address(sparse.values)
    np.testing.assert_array_equal(back.indptr, sparse.indptr)


def test_parts_chunks_and_nulls_come_back_right(tokens, sparse):
    column = multivector_column(tokens)
    chunks = pa.chunked_array([column.slice(2), pa.array([None], column.type), column.slice(0, 1)])
    back = multivectors(chunks)
    assert [matrix.tolist() for matrix in back] == [tokens[2].tolist(), [], tokens[0].tolist()]
    column = sparse_column(sparse)
    back = sparse_batch(pa.chunked_array([column.slice(2), pa.array([None], column.type), column.slice(0, 1)]))
    assert [row.indices.tolist() for row in back] == [[1, 4_000_000_000], [], [3, 9]]
    assert [row.values.tolist() for row in back] == [[1.0, 0.25], [], [0.5, 2.0]]


def test_no_rows_are_no_vectors(tokens, sparse):
    assert len(multivectors(pa.chunked_array([], multivector_column(tokens).type))) == 0
    assert len(sparse_batch(pa.chunked_array([], sparse_column(sparse).type))) == 0


def test_the_terms_to_search_by_are_those_of_the_vectors(tokens, sparse):
    columns = vector_columns({"sparse": sparse, "multivector": tokens, "dense": np.ones((3, 2), np.float32)})
    assert list(columns) == ["vector", "sparse", "sparse_indices", "multivector"]
    indices = columns["sparse_indices"]
    assert indices.to_pylist() == [[3, 9], [], [1, 4_000_000_000]]
    assert indices.values.buffers()[1].address == columns["sparse"].field("indices").values.buffers()[1].address


def test_a_column_of_single_vectors_holds_no_token_vectors():
    with pytest.raises(InvalidInputError, match=r"fixed_size_list<item: float>.*holds no token vectors"):
        multivectors(dense_column(np.ones((2, 4), np.float32)))
