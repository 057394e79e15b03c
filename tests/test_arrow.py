from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tercet.arrow import embeddings_to_arrow
from tercet.errors import InvalidInputError
from tercet.quantize import quantize, quantize_multivector
from tercet.types import Embeddings, MultiVectorBatch, SparseBatch, SparseVector


def vector(*indices: int) -> SparseVector:
    return SparseVector(np.array(indices, np.uint32), np.array(indices, np.float32) / 2)


@pytest.fixture
def columns() -> Embeddings:
    rng = np.random.default_rng(7)
    matrices = [rng.standard_normal((length, 8)).astype(np.float32) for length in (3, 0, 2)]
    return Embeddings(
        model="some/model",
        revision="abc",
        ids=["a", None, "c"],
        tokens=np.array([5, 2, 4], np.int32),
        truncated=np.array([True, False, False]),
        dense=rng.standard_normal((3, 8)).astype(np.float32),
        sparse=SparseBatch.from_rows([vector(1, 9), vector(), vector(2**32 - 1)], 2**32),
        multivector=MultiVectorBatch.from_rows(matrices, 8),
    )


def address(values: np.ndarray) -> int:
    return values.__array_interface__["data"][0]


def test_value_buffers_are_the_columns_own_memory(columns: Embeddings) -> None:
    batch = columns.to_arrow()
    buffers = {
        "tokens": batch["tokens"].buffers()[1],
        "dense": batch["dense"].flatten().buffers()[1],
        "indices": batch["sparse"].field("indices").values.buffers()[1],
        "values": batch["sparse"].field("values").values.buffers()[1],
        "multivector": batch["multivector"].values.flatten().buffers()[1],
    }
    owners = {
        "tokens": columns.tokens,
        "dense": columns.dense,
        "indices": columns.sparse.indices,
        "values": columns.sparse.values,
        "multivector": columns.multivector.values,
    }
    assert {name: buffer.address for name, buffer in buffers.items()} == {n: address(o) for n, o in owners.items()}


def test_schema_is_as_documented(columns: Embeddings) -> None:
    vectors = pa.list_(pa.float32(), 8)
    assert columns.to_arrow().schema == pa.schema(
        {
            "id": pa.string(),
            "tokens": pa.int32(),
            "truncated": pa.bool_(),
            "dense": vectors,
            "sparse": pa.struct({"indices": pa.list_(pa.uint32()), "values": pa.list_(pa.float32())}),
            "multivector": pa.list_(vectors),
        }
    )
    assert columns.to_arrow().schema.metadata == {
        b"model": b"some/model",
        b"revision": b"abc",
        b"sparse_dims": b"4294967296",
    }


def test_rows_read_back(columns: Embeddings) -> None:
    batch = columns.to_arrow()
    batch.validate(full=True)
    assert batch["id"].to_pylist() == ["a", None, "c"]
    assert batch["truncated"].to_pylist() == [True, False, False]
    for i, row in enumerate(batch.to_pylist()):
        assert row["tokens"] == columns.tokens[i]
        assert row["dense"] == columns.dense[i].tolist()
        assert row["multivector"] == columns.multivector[i].tolist()
        assert row["sparse"] == {
            "indices": columns.sparse[i].indices.tolist(),
            "values": columns.sparse[i].values.tolist(),
        }


def test_what_was_not_asked_for_has_no_column(columns: Embeddings) -> None:
    batch = replace(columns, revision=None, dense=None, sparse=None).to_arrow()
    assert batch.schema.names == ["id", "tokens", "truncated", "multivector"]
    assert batch.schema.metadata == {b"model": b"some/model"}


@pytest.mark.parametrize(
    ("dtype", "arrow", "width"),
    [
        ("float16", pa.float16(), 8),
        ("int8", pa.int8(), 8),
        ("uint8", pa.uint8(), 8),
        ("binary", pa.int8(), 1),
        ("ubinary", pa.uint8(), 1),
    ],
)
def test_narrow_types_keep_their_type_and_bring_their_steps(
    columns: Embeddings, dtype: str, arrow: pa.DataType, width: int
) -> None:
    dense, quantization = quantize(columns.dense, dtype)
    multivector = quantize_multivector(columns.multivector, dtype)
    batch = replace(columns, dense=dense, quantization=quantization, multivector=multivector).to_arrow()
    assert batch.schema.field("dense").type == pa.list_(arrow, width)
    assert batch.schema.field("multivector").type == pa.list_(pa.list_(arrow, width))
    np.testing.assert_array_equal(batch["dense"].flatten().to_numpy().reshape(3, width), dense)
    steps = [name for name in batch.schema.names if name.endswith(("_scale", "_offset"))]
    if dtype not in ("int8", "uint8"):
        assert steps == []
        return
    assert steps == ["dense_scale", "dense_offset", "multivector_scale", "multivector_offset"]
    assert batch["dense_scale"].to_pylist() == quantization.scale.tolist()
    assert [len(row) for row in batch["multivector_offset"].to_pylist()] == [3, 0, 2]


def test_a_shortened_view_is_copied_rather_than_misread(columns: Embeddings) -> None:
    batch = replace(columns, dense=columns.dense[:, :3]).to_arrow()
    assert batch["dense"].to_pylist() == columns.dense[:, :3].tolist()


def test_no_items_give_an_empty_batch() -> None:
    empty = Embeddings(
        model="m",
        revision=None,
        ids=[],
        tokens=np.empty(0, np.int32),
        truncated=np.empty(0, bool),
        dense=np.empty((0, 4), np.float32),
        sparse=SparseBatch.from_rows([], 10),
        multivector=MultiVectorBatch.from_rows([], 4),
    )
    batch = embeddings_to_arrow(empty)
    assert batch.num_rows == 0 and batch.schema.field("dense").type == pa.list_(pa.float32(), 4)


def test_more_values_than_arrow_can_address_are_refused(columns: Embeddings) -> None:
    huge = replace(columns.sparse, indptr=np.array([0, 1, 2, 2**31], np.int64))
    with pytest.raises(InvalidInputError, match="fewer items at a time"):
        replace(columns, sparse=huge).to_arrow()
