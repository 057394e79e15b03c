"""Results to documents of dicts, lists, scalars and numpy arrays, and back; what JSON and MessagePack carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidInputError
from tercet.types import Embeddings, MultiVectorBatch, Quantization, Scores, SparseBatch, SparseVector, Timings

_PACKED = {"binary": np.int8, "ubinary": np.uint8}
_PLAIN = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8}
_NUMPY: Mapping[str, Any] = {**_PLAIN, **_PACKED}


def embeddings_document(embeddings: Embeddings) -> dict[str, Any]:
    """Return embeddings as the native interface tells them; vectors stay views of the result's memory."""
    return {
        "model": embeddings.model,
        "revision": embeddings.revision,
        "items": list(_embedded(embeddings)),
        "usage": {"tokens": int(embeddings.tokens.sum())},
        "timing": _timing(embeddings.timings),
    }


def scores_document(scores: Scores) -> dict[str, Any]:
    """Return scores as the native interface tells them, best first."""
    rows = [
        {
            "index": row.index,
            "item_id": row.id,
            "score": row.score,
            "rank": row.rank,
            "tokens": int(scores.tokens[row.index]),
            "truncated": bool(scores.truncated[row.index]),
        }
        for row in scores
    ]
    return {
        "model": scores.model,
        "revision": scores.revision,
        "scores": rows,
        "usage": {"tokens": int(scores.tokens.sum())},
        "timing": _timing(scores.timings),
    }


def read_embeddings(document: Any) -> Embeddings:
    """Return the embeddings of a document, decoded from JSON or as it was made; they own their memory.

    Raises:
        InvalidInputError: something is missing, or of another type or length than it says.
    """
    try:
        return _embeddings(document)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise _malformed("embeddings", error) from None


def read_scores(document: Any) -> Scores:
    """Return the scores of a document that has all of them, decoded from JSON or as it was made.

    Raises:
        InvalidInputError: something is missing or of another type, or the rows are not every index once.
    """
    try:
        return _scores(document)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise _malformed("scores", error) from None


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _embedded(embeddings: Embeddings) -> Iterator[dict[str, Any]]:
    for i in range(len(embeddings)):
        row: dict[str, Any] = {"id": embeddings.ids[i]}
        if embeddings.dense is not None:
            row["dense"] = _vector(embeddings.dense[i], embeddings.quantization, slice(i, i + 1))
        if embeddings.sparse is not None:
            sparse = embeddings.sparse[i]
            dims = embeddings.sparse.dims
            row["sparse"] = {"dims": dims, "dtype": "float32", "indices": sparse.indices, "values": sparse.values}
        if (batch := embeddings.multivector) is not None:
            row["multivector"] = _matrix(batch, slice(batch.offsets[i], batch.offsets[i + 1]))
        yield {**row, "tokens": int(embeddings.tokens[i]), "truncated": bool(embeddings.truncated[i])}


def _vector(values: NDArray[Any], quantization: Quantization | None, rows: slice) -> dict[str, Any]:
    dims, dtype = _shape(values, quantization)
    steps = {} if quantization is None else _steps(quantization, rows)
    return {"dims": dims, "dtype": dtype, "values": values, **{name: float(step[0]) for name, step in steps.items()}}


def _matrix(batch: MultiVectorBatch, rows: slice) -> dict[str, Any]:
    values = batch.values[rows]
    dims, dtype = _shape(values, batch.quantization)
    steps = {} if batch.quantization is None else _steps(batch.quantization, rows)
    return {"num_tokens": len(values), "token_dims": dims, "dtype": dtype, "values": values, **steps}


def _shape(values: NDArray[Any], quantization: Quantization | None) -> tuple[int, str]:
    """Return how many dimensions a vector has, packed bits unpacked, and the name of its type."""
    packed = {np.dtype(kind): name for name, kind in _PACKED.items()}
    if quantization is None and values.dtype in packed:
        return values.shape[-1] * 8, packed[values.dtype]
    return values.shape[-1], values.dtype.name


def _steps(quantization: Quantization, rows: slice) -> dict[str, NDArray[np.float32]]:
    return {"scale": quantization.scale[rows], "offset": quantization.offset[rows]}


def _timing(timings: Timings | None) -> dict[str, float] | None:
    return None if timings is None else asdict(timings)


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _embeddings(document: Mapping[str, Any]) -> Embeddings:
    rows = document["items"]
    dense, quantization = _dense([row["dense"] for row in rows]) if "dense" in rows[0] else (None, None)
    return Embeddings(
        **_common(document, rows, "id"),
        dense=dense,
        quantization=quantization,
        sparse=_sparse([row["sparse"] for row in rows]) if "sparse" in rows[0] else None,
        multivector=_multivector([row["multivector"] for row in rows]) if "multivector" in rows[0] else None,
    )


def _scores(document: Mapping[str, Any]) -> Scores:
    rows = sorted(document["scores"], key=lambda row: row["index"])
    if [row["index"] for row in rows] != list(range(len(rows))):
        raise ValueError("its rows are not every index once")
    return Scores(
        **_common(document, rows, "item_id"),
        scores=_column(rows, "score"),
        order=np.argsort([row["rank"] for row in rows], kind="stable"),
    )


def _common(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the fields that embeddings and scores share."""
    timing, ids = document.get("timing"), [row[name] for row in rows]
    if not all(given is None or isinstance(given, str) for given in ids):
        raise TypeError("an id is no text")
    return {
        "model": document["model"],
        "revision": document.get("revision"),
        "ids": ids,
        "tokens": np.array([row["tokens"] for row in rows], np.int32),
        "truncated": np.array([row["truncated"] for row in rows], np.bool_),
        "timings": None if timing is None else Timings(**timing),
    }


def _dense(rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[Any], Quantization | None]:
    width, kind = _layout(rows, "dims")
    values = np.array([_array(row["values"], kind, (width,)) for row in rows])
    if "scale" not in rows[0]:
        return values, None
    return values, Quantization(_column(rows, "scale"), _column(rows, "offset"))


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float32]:
    return _array([row[name] for row in rows], np.float32, (len(rows),))


def _sparse(rows: Sequence[Mapping[str, Any]]) -> SparseBatch:
    vectors = []
    for row in rows:
        indices = _array(row["indices"], np.uint32, (len(row["indices"]),))
        vectors.append(SparseVector(indices, _array(row["values"], np.float32, indices.shape)))
    (dims,) = {index(row["dims"]) for row in rows}
    return SparseBatch.from_rows(vectors, dims)


def _multivector(rows: Sequence[Mapping[str, Any]]) -> MultiVectorBatch:
    width, kind = _layout(rows, "token_dims")
    sizes = [row["num_tokens"] for row in rows]
    values = np.concatenate([_array(row["values"], kind, (n, width)) for row, n in zip(rows, sizes, strict=True)])
    quantization = None
    if "scale" in rows[0]:
        quantization = Quantization(
            *(
                np.concatenate([_array(row[name], np.float32, (n,)) for row, n in zip(rows, sizes, strict=True)])
                for name in ("scale", "offset")
            )
        )
    return MultiVectorBatch(values, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), quantization)


def _layout(rows: Sequence[Mapping[str, Any]], dims: str) -> tuple[int, Any]:
    """Return how many values each vector holds, and their type."""
    (kind,), (width,) = {row["dtype"] for row in rows}, {row[dims] for row in rows}
    return (width // 8 if kind in _PACKED else width), _NUMPY[kind]


def _array(values: Any, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if np.asarray(values).dtype.kind not in "iuf":  # null would become NaN, and a text its number
        raise TypeError(f"its values are {np.asarray(values).dtype}, not numbers")
    array = np.asarray(values, kind)
    if array.shape == (0,) and 0 in shape:
        return array.reshape(shape)
    if array.shape != shape:
        raise ValueError(f"it says {shape} and holds {array.shape} values")
    return array


def _malformed(what: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"this is not a document of {what}: {type(error).__name__}: {error}")
