"""Results as Arrow columns over the memory that holds them already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tercet.errors import InvalidInputError

if TYPE_CHECKING:
    from tercet.types import Embeddings, MultiVectorBatch, Quantization, Scores, SparseBatch

_LIST_LIMIT = np.iinfo(np.int32).max


def embeddings_to_arrow(embeddings: Embeddings) -> pa.RecordBatch:
    """Return one record batch whose value buffers are those of the columns.

    Only ids, the flags (Arrow packs them into bits) and list offsets (Arrow's are 32 bits wide) are new memory. The
    schema's metadata is as of `result_metadata`.

    Raises:
        InvalidInputError: one column has more values than Arrow's lists can address.
    """
    columns = dict(_columns(embeddings))
    return pa.RecordBatch.from_pydict(columns, metadata=result_metadata(embeddings))


def result_metadata(result: Embeddings | Scores) -> dict[str, str]:
    """Return what a schema says of the whole result: `model` and, where known, `revision`, `timings`, `sparse_dims`."""
    sparse = getattr(result, "sparse", None)
    known = {
        "model": result.model,
        "revision": result.revision,
        "timings": json.dumps(asdict(result.timings)) if result.timings else None,
        "sparse_dims": None if sparse is None else str(sparse.dims),
    }
    return {key: value for key, value in known.items() if value is not None}


def _columns(embeddings: Embeddings) -> Iterator[tuple[str, pa.Array]]:
    yield "id", pa.array(embeddings.ids, pa.string())
    yield "tokens", _primitive(embeddings.tokens)
    yield "truncated", pa.array(embeddings.truncated)
    if embeddings.dense is not None:
        yield "dense", _vectors(embeddings.dense)
    if embeddings.quantization is not None:
        yield from _steps("dense", embeddings.quantization).items()
    if embeddings.sparse is not None:
        yield "sparse", _sparse(embeddings.sparse)
    if embeddings.multivector is not None:
        yield from _multivector(embeddings.multivector)


def _multivector(batch: MultiVectorBatch) -> Iterator[tuple[str, pa.Array]]:
    offsets = _offsets(batch.offsets)
    yield "multivector", pa.ListArray.from_arrays(offsets, _vectors(batch.values))
    if batch.quantization is not None:
        for name, steps in _steps("multivector", batch.quantization).items():
            yield name, pa.ListArray.from_arrays(offsets, steps)


def _sparse(batch: SparseBatch) -> pa.StructArray:
    offsets = _offsets(batch.indptr)
    lists = [pa.ListArray.from_arrays(offsets, _primitive(values)) for values in (batch.indices, batch.values)]
    return pa.StructArray.from_arrays(lists, names=["indices", "values"])


def _steps(column: str, quantization: Quantization) -> Mapping[str, pa.Array]:
    return {f"{column}_scale": _primitive(quantization.scale), f"{column}_offset": _primitive(quantization.offset)}


def _vectors(values: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(_primitive(values.reshape(-1)), values.shape[1])


def _primitive(values: NDArray[Any]) -> pa.Array:
    contiguous = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(contiguous)])


def _offsets(offsets: NDArray[np.int64]) -> pa.Array:
    if offsets[-1] > _LIST_LIMIT:
        raise InvalidInputError(
            f"{offsets[-1]} values are more than the {_LIST_LIMIT} that one Arrow list column holds; "
            "convert fewer items at a time"
        )
    return _primitive(offsets.astype(np.int32))
