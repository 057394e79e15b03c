"""Results as Arrow streams: the same bits come back, over the body's own memory."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.results import assert_same, drawn_embeddings, embeddings, scores
from tercet.errors import InvalidInputError
from tercet.types import Timings
from tercet.wire.columns import embeddings_stream, read_embeddings_stream, read_scores_stream, scores_stream
from tercet.wire.stream import read_stream, write_stream

ALL = frozenset(["dense", "sparse", "multivector"])


@given(drawn_embeddings())
def test_embeddings_survive_to_the_last_bit(result):
    assert_same(read_embeddings_stream(embeddings_stream(result)), result)


@given(st.integers(0, 2**32), st.integers(1, 20), st.none() | st.integers(1, 20))
def test_scores_survive_to_the_last_bit(seed, size, top_k):
    result = scores(seed, size, top_k, Timings(1, 2, 3, 4))
    assert_same(read_scores_stream(scores_stream(result)), result)


def test_no_items_survive_too():
    result = embeddings(1, ALL, "float32", [])
    assert_same(read_embeddings_stream(embeddings_stream(result)), result)


def test_vectors_are_views_of_the_body():
    body = embeddings_stream(embeddings(1, ALL, "int8", ["a", "b", "c"]))
    result = read_embeddings_stream(body)
    memory = np.frombuffer(body, np.uint8)
    columns = [result.dense, result.tokens, result.sparse.values, result.multivector.values]
    assert all(np.shares_memory(column, memory) for column in [*columns, result.multivector.quantization.scale])


def test_a_slice_of_a_batch_is_read_as_itself():
    whole = embeddings(5, ALL, "uint8", list("abcdef"))
    part = read_embeddings_stream(write_stream(whole.to_arrow().slice(2, 3)))
    assert part.ids == ["c", "d", "e"]
    for i in range(3):
        for output in ALL - {"sparse"}:
            np.testing.assert_array_equal(part[i][output], whole[i + 2][output])
        np.testing.assert_array_equal(part[i]["sparse"].indices, whole[i + 2]["sparse"].indices)
    first, last = whole.multivector.offsets[2], whole.multivector.offsets[5]
    np.testing.assert_array_equal(part.multivector.quantization.scale, whole.multivector.quantization.scale[first:last])


BATCH = embeddings(1, ALL, "float32", ["a", "b"]).to_arrow()


@pytest.mark.parametrize("name", ["id", "tokens", "truncated"])
def test_a_missing_column_is_refused(name):
    with pytest.raises(InvalidInputError, match=f"no embeddings: KeyError.*{name}"):
        read_embeddings_stream(write_stream(BATCH.drop_columns([name])))


@pytest.mark.parametrize("name", ["tokens", "truncated", "dense", "sparse", "multivector"])
@pytest.mark.parametrize("values", [["x", "y"], [1.5, None], [[1, 2], [3]], [{"a": 1}, {"a": 2}]])
def test_a_column_of_another_type_is_refused(name, values):
    columns = {**dict(zip(BATCH.schema.names, BATCH.columns, strict=True)), name: pa.array(values)}
    body = write_stream(pa.RecordBatch.from_pydict(columns, metadata=BATCH.schema.metadata))
    with pytest.raises(InvalidInputError, match="no embeddings"):
        read_embeddings_stream(body)
    with pytest.raises(InvalidInputError, match="no scores"):
        read_scores_stream(body)


def test_a_batch_without_its_metadata_is_refused():
    with pytest.raises(InvalidInputError, match="no embeddings: KeyError: 'model'"):
        read_embeddings_stream(write_stream(BATCH.replace_schema_metadata(None)))


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def streamed(*batches, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def test_several_batches_are_read_as_one():
    one, two = pa.record_batch({"text": ["a", "b"]}), pa.record_batch({"text": ["c"]})
    assert read_stream(streamed(one, two)).to_pydict() == {"text": ["a", "b", "c"]}


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_batches_are_refused_unread(compression):
    bomb = pa.record_batch({"text": ["x" * 1_000_000]})
    with pytest.raises(InvalidInputError, match="compressed"):
        read_stream(streamed(bomb, compression=compression))


def test_dictionaries_are_refused():
    batch = pa.record_batch({"text": pa.array(["a", "a"]).dictionary_encode()})
    with pytest.raises(InvalidInputError, match="holds a dictionary"):
        read_stream(streamed(batch))


@pytest.mark.parametrize("body", [b"", b"{}", b"ARROW1\0\0", b"\xff" * 100, write_stream(BATCH)[:-30]])
def test_what_is_no_stream_is_refused(body):
    with pytest.raises(InvalidInputError, match="Arrow stream"):
        read_stream(body)


def test_a_stream_without_batches_is_refused():
    schema = pa.schema({"text": pa.string()})
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, schema).close()
    with pytest.raises(InvalidInputError, match="Arrow stream"):
        read_stream(sink.getvalue().to_pybytes())


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_a_damaged_stream_is_refused_or_read_and_nothing_else(seed, flips):
    rng, body = np.random.default_rng(seed), bytearray(write_stream(BATCH))
    for place in rng.integers(0, len(body), flips):
        body[place] = rng.integers(0, 256)
    try:
        read_embeddings_stream(bytes(body))
    except InvalidInputError as error:
        assert error.message
