"""Results as Arrow streams and back; see `tercet.arrow` for the columns of embeddings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tercet.arrow import result_metadata
from tercet.errors import InvalidInputError
from tercet.types import Embeddings, MultiVectorBatch, Quantization, Scores, SparseBatch, Timings
from tercet.wire.stream import read_stream, write_stream

_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException)


def embeddings_stream(embeddings: Embeddings) -> bytes:
    """Return the embeddings as an Arrow stream of one record batch.

    Raises:
        InvalidInputError: one column has more values than Arrow's lists can address.
    """
    return write_stream(embeddings.to_arrow())


def scores_stream(scores: Scores) -> bytes:
    """Return the scores as an Arrow stream: one row an item in request order, `rank` null where `top_k` left it out."""
    ranks = np.full(len(scores.scores), -1, np.int32)
    ranks[scores.order] = np.arange(len(scores.order), dtype=np.int32)
    columns = {
        "id": pa.array(scores.ids, pa.string()),
        "tokens": pa.array(scores.tokens),
        "truncated": pa.array(scores.truncated),
        "score": pa.array(scores.scores),
        "rank": pa.array(ranks, mask=ranks < 0),
    }
    return write_stream(pa.RecordBatch.from_pydict(columns, metadata=result_metadata(scores)))


def read_embeddings_stream(body: bytes) -> Embeddings:
    """Return the embeddings of an Arrow stream; their vectors are read-only views of `body`.

    Raises:
        InvalidInputError: no such stream.
    """
    batch = read_stream(body)
    names = batch.schema.names
    try:
        return Embeddings(
            **_shared(batch),
            dense=_matrix(batch["dense"]) if "dense" in names else None,
            quantization=_quantization(batch, "dense"),
            sparse=_sparse(batch) if "sparse" in names else None,
            multivector=_multivector(batch) if "multivector" in names else None,
        )
    except _MALFORMED as error:
        raise InvalidInputError(f"the Arrow stream holds no embeddings: {type(error).__name__}: {error}") from None


def read_scores_stream(body: bytes) -> Scores:
    """Return the scores of an Arrow stream; `scores` is a read-only view of `body`.

    Raises:
        InvalidInputError: no such stream.
    """
    batch = read_stream(body)
    try:
        ranks = batch["rank"].fill_null(batch.num_rows).to_numpy()
        kept = batch.num_rows - batch["rank"].null_count
        scores = _numbers(batch["score"], pa.float32())
        return Scores(**_shared(batch), scores=scores, order=np.argsort(ranks, kind="stable")[:kept])
    except _MALFORMED as error:
        raise InvalidInputError(f"the Arrow stream holds no scores: {type(error).__name__}: {error}") from None


def _shared(batch: pa.RecordBatch) -> dict[str, Any]:
    """Return the fields that embeddings and scores share."""
    metadata = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    return {
        "model": metadata["model"],
        "revision": metadata.get("revision"),
        "timings": Timings(**json.loads(metadata["timings"])) if "timings" in metadata else None,
        "ids": batch["id"].to_pylist(),
        "tokens": _numbers(batch["tokens"], pa.int32()),
        "truncated": _flags(batch["truncated"]),
    }


def _flags(array: pa.Array) -> NDArray[np.bool_]:
    if not pa.types.is_boolean(array.type) or array.null_count:
        raise TypeError(f"a column is {array.type} with {array.null_count} nulls; expected true and false")
    values: NDArray[np.bool_] = array.to_numpy(zero_copy_only=False)
    return values


def _sparse(batch: pa.RecordBatch) -> SparseBatch:
    (indices, offsets), (values, _) = (_rows(column) for column in batch["sparse"].flatten())
    dims = int(batch.schema.metadata[b"sparse_dims"])
    return SparseBatch(offsets, _numbers(indices, pa.uint32()), _numbers(values, pa.float32()), dims)


def _multivector(batch: pa.RecordBatch) -> MultiVectorBatch:
    matrices, offsets = _rows(batch["multivector"])
    return MultiVectorBatch(_matrix(matrices), offsets, _quantization(batch, "multivector"))


def _quantization(batch: pa.RecordBatch, column: str) -> Quantization | None:
    if f"{column}_scale" not in batch.schema.names:
        return None
    steps = (batch[f"{column}_{name}"] for name in ("scale", "offset"))
    flat = (_rows(step)[0] if pa.types.is_list(step.type) else step for step in steps)
    return Quantization(*(_numbers(step, pa.float32()) for step in flat))


def _rows(array: pa.ListArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the values of a column of lists and, as (n + 1,), where each row of it begins."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.flatten(), offsets - offsets[0]


def _matrix(array: pa.FixedSizeListArray) -> NDArray[Any]:
    return _numbers(array.flatten()).reshape(len(array), array.type.list_size)


def _numbers(array: pa.Array, kind: pa.DataType | None = None) -> NDArray[Any]:
    """Return the numbers of an array without nulls, of any type or of the one given, as a view of its memory."""
    if array.null_count or (kind is not None and array.type != kind):
        raise TypeError(f"a column is {array.type} with {array.null_count} nulls; expected {kind or 'numbers'}")
    dtype = np.dtype(array.type.to_pandas_dtype())
    buffer = memoryview(array.buffers()[1] or b"")
    values: NDArray[Any] = np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)
    return values
