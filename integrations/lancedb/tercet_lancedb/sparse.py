"""Sparse search in LanceDB, which has none: an index on the terms finds the candidates, the dot product is exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from lancedb.table import AsyncTable, Table
from numpy.typing import NDArray

from tercet.fusion import sparse_dot, top_k
from tercet.types import SparseVector
from tercet_lancedb.columns import COLUMNS, SPARSE_INDICES, sparse_batch
from tercet_lancedb.results import ROW_ID, SCORE


def sparse_search(
    table: Table, query: SparseVector, k: int = 10, *, where: str | None = None, idf: bool = False
) -> pa.Table:
    """Return `_rowid` and `_score` of the k rows of highest dot product, best first, of those that share a term.

    Exact: every row with a term of the query is read, in batches; `create_indices` makes finding them fast.

    Args:
        table: made by `embed_table` or `schema_for`.
        query: from the query side of the model.
        k: how many at most.
        where: SQL condition that rows have to meet.
        idf: multiply each term by ln(1 + (n − df + ½) / (df + ½)) over the whole table, as BM25's vectors want.
    """
    if idf:
        holding = [table.count_rows(_holds([term])) for term in query.indices]
        query = _weighted(query, table.count_rows(), holding)
    scan = _Scan(query, k)
    if len(query):
        for batch in table.search().where(_condition(query, where)).select(_READ).with_row_id(True).to_batches():
            scan.add(batch)
    return scan.best()


async def asparse_search(
    table: AsyncTable, query: SparseVector, k: int = 10, *, where: str | None = None, idf: bool = False
) -> pa.Table:
    """Return as `sparse_search`, for LanceDB's asynchronous tables."""
    if idf:
        holding = [await table.count_rows(_holds([term])) for term in query.indices]
        query = _weighted(query, await table.count_rows(), holding)
    scan = _Scan(query, k)
    if len(query):
        async for batch in await table.query().where(_condition(query, where)).select(_READ).with_row_id().to_batches():
            scan.add(batch)
    return scan.best()


_READ = [COLUMNS["sparse"]]


class _Scan:
    """The best k of all rows seen so far."""

    def __init__(self, query: SparseVector, k: int) -> None:
        self._query, self._k = query, k
        self._row_ids, self._scores = np.empty(0, np.uint64), np.empty(0, np.float32)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows with their sparse vectors."""
        row_ids = np.concatenate([self._row_ids, batch.column(ROW_ID).to_numpy()])
        scores = np.concatenate([self._scores, sparse_dot(self._query, sparse_batch(batch.column(_READ[0])))])
        by_id = np.argsort(row_ids)  # equal scores in the order of the table, however the rows come
        best = by_id[top_k(scores[by_id], self._k)]
        self._row_ids, self._scores = row_ids[best], scores[best]

    def best(self) -> pa.Table:
        """Return their row ids and scores, best first."""
        return pa.table({ROW_ID: self._row_ids, SCORE: self._scores})


def _weighted(query: SparseVector, rows: int, holding: Sequence[int]) -> SparseVector:
    """Return the query with inverse document frequencies, for those terms that any row holds."""
    counts: NDArray[np.int64] = np.array(holding, np.int64)
    idf = np.log1p((rows - counts + 0.5) / (counts + 0.5)).astype(np.float32)
    known = counts > 0
    return SparseVector(query.indices[known], (query.values * idf)[known])


def _condition(query: SparseVector, where: str | None) -> str:
    holds = _holds(query.indices)
    return f"{holds} AND ({where})" if where else holds


def _holds(terms: Sequence[int] | NDArray[np.uint32]) -> str:
    """Return the condition that a row has one of the terms; other integer types than the column's bypass the index."""
    return f"array_has_any({SPARSE_INDICES}, arrow_cast([{', '.join(map(str, terms))}], 'List(UInt32)'))"
