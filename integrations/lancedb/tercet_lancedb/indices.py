"""`create_indices`: what makes a table's searches fast, for the sizes at which an index is worth its approximation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lancedb.index import FTS, BTree, HnswSq, IvfFlat, IvfPq, LabelList
from lancedb.table import AsyncTable, Table

from tercet_lancedb.columns import COLUMNS, SPARSE_INDICES
from tercet_lancedb.layout import TableLayout

VECTORS_FROM = 100_000  # rows; below, LanceDB scans all vectors in milliseconds, and exactly


def create_indices(table: Table, *, vectors_from: int = VECTORS_FROM) -> list[str]:
    """Make the indices that searches and further calls of `embed_table` use; return the columns that have one.

    Files are compacted first. Made again, an index takes in the rows that were added since.

    Args:
        table: made by `embed_table` or `schema_for`.
        vectors_from: rows from which vectors get an approximate index: HNSW over 8-bit values for dense ones by
            cosine, IVF for packed bits by hamming distance, IVF-PQ for token vectors by cosine. `nprobes` and
            `refine_factor` of a search recover exactness.

    Raises:
        InvalidInputError: the table does not say how its vectors are made.
    """
    layout = TableLayout.of(table.schema)
    table.optimize()
    made = dict(_indices(layout, table.count_rows() >= vectors_from))
    for column, config in made.items():
        table.create_index(column, config=config, replace=True)
    return list(made)


async def acreate_indices(table: AsyncTable, *, vectors_from: int = VECTORS_FROM) -> list[str]:
    """Make and return as `create_indices`, for LanceDB's asynchronous tables."""
    layout = TableLayout.of(await table.schema())
    await table.optimize()
    made = dict(_indices(layout, await table.count_rows() >= vectors_from))
    for column, config in made.items():
        await table.create_index(column, config=config, replace=True)
    return list(made)


def _indices(layout: TableLayout, vectors: bool) -> Iterator[tuple[str, Any]]:
    yield layout.key, BTree()
    yield layout.text, FTS()
    for output, encoding in layout.spec.encodings.items():
        if output == "sparse":
            yield SPARSE_INDICES, LabelList()
        elif vectors and output == "multivector":
            yield COLUMNS[output], IvfPq(distance_type="cosine")
        elif vectors:
            bits = encoding.output_dtype == "ubinary"
            yield COLUMNS[output], IvfFlat(distance_type="hamming") if bits else HnswSq(distance_type="cosine")
