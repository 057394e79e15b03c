"""What is done with rows: encoded or scored, by the engine of this process or by a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from tercet.errors import InvalidInputError
from tercet.types import Inference, Item, Scores
from tercet_server.bulk.job import Work
from tercet_server.bulk.rows import Row

_LASTING = (b"model", b"revision", b"sparse_dims")  # of a result's metadata: what is the same for all its parts
_QUERIES_AT_ONCE = 16


def encoding(inference: Inference, model: str, choices: Mapping[str, Any]) -> Work:
    """Return what encodes rows; `choices` are keywords of `encode`."""

    def work(rows: list[Row]) -> pa.RecordBatch:
        items = [Item(row.text, row.id) for row in rows]
        return _lasting(inference.encode(model, items, **choices).to_arrow())

    return work


def scoring(inference: Inference, model: str, choices: Mapping[str, Any], query: str | None) -> Work:
    """Return what scores each row against its own query, or all against `query`; `choices` are keywords of `score`.

    The results stand in the order of the rows: id, tokens, truncated, score.
    """

    def work(rows: list[Row]) -> pa.RecordBatch:
        groups = _by_query(rows, query)

        def score(asked: str) -> Scores:
            items = [Item(rows[i].text, rows[i].id) for i in groups[asked]]
            return inference.score(model, asked, items, **choices)

        with ThreadPoolExecutor(min(len(groups), _QUERIES_AT_ONCE)) as pool:
            parts = list(pool.map(score, groups))
        return _in_order(parts, [i for places in groups.values() for i in places])

    return work


def _by_query(rows: Sequence[Row], query: str | None) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        asked = row.query if query is None else query
        assert asked is not None
        groups.setdefault(asked, []).append(i)
    return groups


def _in_order(parts: Sequence[Scores], places: Sequence[int]) -> pa.RecordBatch:
    """Return the scores of all parts as columns; row i of the parts together belongs at `places[i]`."""
    if len({part.revision for part in parts}) > 1:
        raise InvalidInputError(f"the revision of {parts[0].model} changed while rows were scored; run it again")
    order = np.argsort(places)
    ids = [identity for part in parts for identity in part.ids]
    columns = {
        "id": pa.array([ids[i] for i in order], pa.string()),
        "tokens": pa.array(_joined(part.tokens for part in parts)[order]),
        "truncated": pa.array(_joined(part.truncated for part in parts)[order]),
        "score": pa.array(_joined(part.scores for part in parts)[order]),
    }
    revision = parts[0].revision
    metadata = {"model": parts[0].model, **({} if revision is None else {"revision": revision})}
    return pa.RecordBatch.from_pydict(columns, metadata=metadata)


def _joined(arrays: Iterable[Any]) -> Any:
    return np.concatenate(list(arrays))


def _lasting(batch: pa.RecordBatch) -> pa.RecordBatch:
    metadata = batch.schema.metadata or {}
    return batch.replace_schema_metadata({key: metadata[key] for key in _LASTING if key in metadata})
