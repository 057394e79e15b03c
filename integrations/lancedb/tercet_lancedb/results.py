"""Tables of results: joined by row id and put in order, all in Arrow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tercet.errors import InvalidInputError

ROW_ID, DISTANCE, SCORE, RELEVANCE = "_rowid", "_distance", "_score", "_relevance_score"


def merged(results: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all results, each row id once, in the order in which they first appear.

    A row found by several searches keeps the distance of the first that measured one, and likewise the score. Results
    without rows may lack columns, as LanceDB's do.

    Raises:
        InvalidInputError: results with rows have no row id.
    """
    filled = [result for result in results if result.num_rows] or list(results[:1])
    if len(filled) == 1 and ROW_ID not in filled[0].column_names:
        return filled[0]
    for result in filled:
        if ROW_ID not in result.column_names:
            raise InvalidInputError(f"results to merge need {ROW_ID!r}; ask for it: search(…).with_row_id(True)")
    rows = _first_of_each(pa.concat_tables(filled, promote_options="default"))
    for name in (DISTANCE, SCORE):
        if name in rows.column_names:
            measured = [result for result in filled if name in result.column_names]
            rows = with_column(rows, name, aligned(rows[ROW_ID], measured, name))
    return rows


def ordered(rows: pa.Table, relevance: NDArray[np.float32]) -> pa.Table:
    """Return the rows with their relevance, the highest first, equal ones in the order that they came in."""
    scored = with_column(rows, RELEVANCE, pa.array(np.asarray(relevance, np.float32)))
    return scored.take(pa.array(np.argsort(-relevance, kind="stable")))


def aligned(row_ids: pa.ChunkedArray | pa.Array, results: Sequence[pa.Table], name: str) -> pa.ChunkedArray:
    """Return a column of the results for each row id, from the first result that has it; null where none has."""
    found = [pc.take(result[name], pc.index_in(row_ids, result[ROW_ID].combine_chunks())) for result in results]
    return pc.coalesce(*found)


def with_column(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows with a column set or added."""
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, column)
    return rows.append_column(name, column)


def without(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the rows without those of the columns that are there."""
    return rows.drop_columns([name for name in names if name in rows.column_names])


def _first_of_each(rows: pa.Table) -> pa.Table:
    _, first = np.unique(rows[ROW_ID].to_numpy(), return_index=True)
    return rows.take(pa.array(np.sort(first)))
