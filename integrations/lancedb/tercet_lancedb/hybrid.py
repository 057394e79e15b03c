"""`hybrid` and `ahybrid`: several searches of one table, fused, then reranked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, Unpack, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.rerankers import Reranker
from lancedb.table import AsyncTable, Table
from numpy.typing import NDArray

from tercet.errors import InvalidInputError
from tercet.fusion import Fusion, fuse
from tercet.inputs import positive
from tercet.types import Inference
from tercet.vector_spec import VectorSpec
from tercet_lancedb.columns import COLUMNS
from tercet_lancedb.layout import TableLayout, plain_columns
from tercet_lancedb.results import DISTANCE, RELEVANCE, ROW_ID, SCORE, aligned, with_column
from tercet_lancedb.sparse import asparse_search, sparse_search

Leg = Literal["dense", "sparse", "multivector", "text"]

_LEGS: tuple[Leg, ...] = get_args(Leg)


class HybridChoices(TypedDict, total=False):
    """How to search, as `hybrid` documents it."""

    legs: Sequence[Leg]
    reranker: Reranker | None
    where: str | None
    select: Sequence[str] | None
    candidates: int
    fuse_by: Fusion
    rrf_k: float
    weights: Sequence[float] | None
    nprobes: int | None
    refine_factor: int | None
    inference: Inference | str | None


def hybrid(table: Table, query: str, k: int = 10, **choices: Unpack[HybridChoices]) -> pa.Table:
    """Return the k best rows with `_rowid` and `_relevance_score`, best first.

    Each leg finds `candidates` rows; they are fused, the best of them read, and reranked.

    Args:
        table: made by `embed_table` or `schema_for`.
        query: the question.
        k: how many rows.
        choices: `legs`: which searches, among "dense", "sparse", "multivector" (late interaction) and "text" (LanceDB's
            full-text search); by default dense, and sparse or else text. `reranker`: any of LanceDB's that takes vector
            results; it gets `candidates` rows. `where`: SQL condition that rows have to meet. `select`: columns to
            return, by default all but the vectors. `candidates` (100): rows that a leg finds. `fuse_by` (ranks),
            `rrf_k` (60), `weights`, one per leg: as `tercet.fuse`. `nprobes`, `refine_factor`: as LanceDB's, for tables
            with a vector index. `inference`: as `connect`, in place of the one stored with the table.

    Raises:
        ModelMismatchError: the table was filled with another model.
        InvalidInputError: the table says not how its vectors are made, has not what a leg needs, or a value is wrong.
        TercetError: as `Engine.encode`.
    """
    plan = _Plan.of(table.schema, k, choices)
    vectors = plan.encode(query)
    with ThreadPoolExecutor(len(plan.legs)) as pool:
        found = list(pool.map(lambda leg: _found(table, plan, leg, query, vectors), plan.legs))
    fused = plan.fuse(found)
    if not fused:
        return plan.empty(table.schema)
    rows = table.take_row_ids(list(fused)).select(list(plan.read)).with_row_id().to_arrow()
    return plan.finish(query, rows, fused, found)


async def ahybrid(table: AsyncTable, query: str, k: int = 10, **choices: Unpack[HybridChoices]) -> pa.Table:
    """Return as `hybrid`, for LanceDB's asynchronous tables; models and rerankers run on threads."""
    schema = await table.schema()
    plan = _Plan.of(schema, k, choices)
    vectors = await asyncio.to_thread(plan.encode, query)
    found = list(await asyncio.gather(*(_afound(table, plan, leg, query, vectors) for leg in plan.legs)))
    fused = plan.fuse(found)
    if not fused:
        return plan.empty(schema)
    rows = await table.take_row_ids(list(fused)).select(list(plan.read)).with_row_id().to_arrow()
    return await asyncio.to_thread(plan.finish, query, rows, fused, found)


@dataclass(frozen=True, slots=True)
class _Plan:
    """One hybrid search: what was asked for, checked against the table."""

    layout: TableLayout
    k: int
    legs: tuple[Leg, ...]
    select: tuple[str, ...]
    reranker: Reranker | None = None
    where: str | None = None
    candidates: int = 100
    fuse_by: Fusion = "ranks"
    rrf_k: float = 60.0
    weights: Sequence[float] | None = None
    nprobes: int | None = None
    refine_factor: int | None = None
    inference: Inference | str | None = None

    @classmethod
    def of(cls, schema: pa.Schema, k: int, choices: HybridChoices) -> _Plan:
        """Return the plan for a table.

        Raises:
            InvalidInputError: as `hybrid`.
        """
        layout = TableLayout.of(schema)
        given: dict[str, Any] = dict(choices)
        select = given.pop("select", None)
        select = plain_columns(schema) if select is None else select
        legs = tuple(given.pop("legs", None) or _usual(layout.spec))
        plan = cls(layout=layout, k=k, legs=legs, select=tuple(select), **given)
        plan._check(schema)
        return replace(plan, candidates=max(plan.candidates, k))

    @property
    def read(self) -> tuple[str, ...]:
        """The columns to read: those asked for, and the one that the reranker scores."""
        column = getattr(self.reranker, "column", None)
        return self.select if column is None or column in self.select else (*self.select, column)

    @property
    def distance(self) -> str:
        """How dense vectors are compared."""
        return "hamming" if self.layout.spec.encodings["dense"].output_dtype == "ubinary" else "cosine"

    def encode(self, query: str) -> dict[Any, Any]:
        """Return the query's vectors for the legs that need one.

        Raises:
            TercetError: as `hybrid`.
        """
        needed = {leg: self.layout.spec.encodings[leg] for leg in self.legs if leg != "text"}
        if not needed:
            return {}
        return {**VectorSpec(**needed).encode_query(self.layout.connect(self.inference), query)}

    def narrow(self, search: Any) -> Any:
        """Return a search, of either kind, with the condition and limit."""
        return (search.where(self.where) if self.where else search).limit(self.candidates)

    def tuned(self, search: Any, leg: Leg) -> Any:
        """Return a vector search, of either kind, with the metric and the settings of its index."""
        search = search.distance_type(self.distance if leg == "dense" else "cosine").select([ROW_ID, DISTANCE])
        search = search if self.nprobes is None else search.nprobes(self.nprobes)
        return search if self.refine_factor is None else search.refine_factor(self.refine_factor)

    def fuse(self, found: Sequence[pa.Table]) -> dict[int, float]:
        """Return the row ids to read with their fused scores, best first."""
        results = [_ranking(result) for result in found]
        fused = fuse(results, by=self.fuse_by, k=self.rrf_k, weights=self.weights)
        return dict(list(fused.items())[: self.candidates if self.reranker else self.k])

    def finish(self, query: str, rows: pa.Table, fused: dict[int, float], found: Sequence[pa.Table]) -> pa.Table:
        """Return the rows that are to be returned, best first; a row deleted since it was found is left out."""
        places = pc.index_in(pa.array(list(fused), pa.uint64()), rows[ROW_ID].combine_chunks())
        kept = places.is_valid()
        rows = rows.take(places.filter(kept))
        if self.reranker is None:
            scores: NDArray[np.float32] = np.fromiter(fused.values(), np.float32, len(fused))
            return rows.append_column(RELEVANCE, pa.array(scores).filter(kept))
        if "dense" in self.legs and found[self.legs.index("dense")].num_rows:
            measured = aligned(rows[ROW_ID], [found[self.legs.index("dense")]], DISTANCE)
        else:
            measured = pa.nulls(rows.num_rows, pa.float32())
        best = self.reranker.rerank_vector(query, with_column(rows, DISTANCE, measured)).slice(0, self.k)
        return best.select([*self.select, ROW_ID, RELEVANCE])

    def empty(self, schema: pa.Schema) -> pa.Table:
        """Return the result of a search that found nothing."""
        fields = [*(schema.field(name) for name in self.select), pa.field(ROW_ID, pa.uint64())]
        return pa.schema([*fields, pa.field(RELEVANCE, pa.float32())]).empty_table()

    def _check(self, schema: pa.Schema) -> None:
        positive("k", self.k)
        positive("candidates", self.candidates)
        for leg in self.legs:
            if leg not in _LEGS:
                raise InvalidInputError(f"legs holds {leg!r}; choose from {', '.join(_LEGS)}")
            if leg != "text" and leg not in self.layout.spec.outputs:
                has = ", ".join(self.layout.spec.outputs)
                raise InvalidInputError(f"the table has no {leg} vectors to search; it has {has}, and text")
        for name in self.read:
            if name not in schema.names:
                raise InvalidInputError(f"the table has no column {name!r}; it has {', '.join(schema.names)}")


def _usual(spec: VectorSpec) -> list[Leg]:
    vectors: list[Leg] = [*spec.outputs]
    if len(vectors) > 1:
        vectors = [leg for leg in vectors if leg != "multivector"]  # reads every row without an index: on demand
    return vectors if "sparse" in vectors else [*vectors, "text"]


def _ranking(found: pa.Table) -> dict[int, float]:
    """Return scores by row id, best first, equal ones in the order of the table: LanceDB's own order of them varies."""
    if not found.num_rows:
        return {}
    column, order, sign = (DISTANCE, "ascending", -1) if DISTANCE in found.column_names else (SCORE, "descending", 1)
    best_first = found.sort_by([(column, order), (ROW_ID, "ascending")])
    scores = sign * best_first[column].to_numpy()
    return dict(zip(best_first[ROW_ID].to_pylist(), scores.tolist(), strict=True))


def _found(table: Table, plan: _Plan, leg: Leg, query: str, vectors: dict[Any, Any]) -> pa.Table:
    if leg == "sparse":
        return sparse_search(table, vectors[leg], plan.candidates, where=plan.where, idf=plan.layout.idf)
    if leg == "text":
        search = table.search(query, query_type="fts", fts_columns=plan.layout.text)
        return plan.narrow(search).select([ROW_ID, SCORE]).with_row_id(True).to_arrow()
    search = table.search(vectors[leg], vector_column_name=COLUMNS[leg])
    return plan.tuned(plan.narrow(search), leg).with_row_id(True).to_arrow()


async def _afound(table: AsyncTable, plan: _Plan, leg: Leg, query: str, vectors: dict[Any, Any]) -> pa.Table:
    if leg == "sparse":
        return await asparse_search(table, vectors[leg], plan.candidates, where=plan.where, idf=plan.layout.idf)
    if leg == "text":
        search = table.query().nearest_to_text(query, columns=[plan.layout.text])
        return await plan.narrow(search).select([ROW_ID, SCORE]).with_row_id().to_arrow()
    nearest = table.query().nearest_to(vectors[leg]).column(COLUMNS[leg])
    return await plan.tuned(plan.narrow(nearest), leg).with_row_id().to_arrow()
