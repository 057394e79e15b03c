"""Rerankers for LanceDB's `.rerank(…)`: by a model that reads query and text, or by MaxSim of stored token vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
from lancedb.rerankers import Reranker
from numpy.typing import NDArray

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.fusion import maxsim
from tercet.inputs import model_name, score_params
from tercet.types import Inference
from tercet.vector_spec import Encoding, Fingerprint, VectorSpec
from tercet_lancedb import known
from tercet_lancedb.columns import COLUMNS, multivectors
from tercet_lancedb.layout import TableLayout
from tercet_lancedb.results import DISTANCE, RELEVANCE, SCORE, merged, ordered, without


class _ColumnReranker(Reranker):
    """What both rerankers share: results are joined, one column is scored, and the best come first.

    Results carry `_relevance_score`, float32, and keep `_rowid`. Only what a search returned is reranked, so ask it for
    more rows than are wanted, or use `hybrid`, which does. LanceDB's asynchronous queries run rerankers on the event
    loop; `ahybrid` runs them on a thread.

    Args:
        column: what is scored; it has to be among the selected columns.
        return_score: "relevance", or "all" to keep `_distance` and `_score` as well.
    """

    def __init__(self, column: str, return_score: str) -> None:
        super().__init__(return_score)
        self.column = column

    @abstractmethod
    def _scores(self, query: str, column: pa.ChunkedArray) -> NDArray[np.float32]:
        """Return one finite score a row, higher is better."""

    def rerank_hybrid(self, query: Any, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """Return the rows of both results, each once, best first.

        Raises:
            InvalidInputError: the column is not among the results, or the query is no text.
            TercetError: as `Engine.score` and `Engine.encode`.
        """
        return self._reranked(query, merged([vector_results, fts_results]))

    def rerank_vector(self, query: Any, vector_results: pa.Table) -> pa.Table:
        """Return the rows, best first; raises as `rerank_hybrid`."""
        return self._reranked(query, vector_results)

    def rerank_fts(self, query: Any, fts_results: pa.Table) -> pa.Table:
        """Return the rows, best first; raises as `rerank_hybrid`."""
        return self._reranked(query, fts_results)

    def rerank_multivector(self, vector_results: Any, query: Any = None, deduplicate: bool = True) -> pa.Table:
        """Return the rows of several searches, best first; raises as `rerank_hybrid`.

        Args:
            vector_results: tables, or searches that have not run yet.
            query: the text.
            deduplicate: join rows by `_rowid`.
        """
        listed = list(vector_results) if isinstance(vector_results, list | tuple) else [vector_results]
        if not listed:
            raise InvalidInputError("vector_results is empty; give at least one table of results")
        tables = [one if isinstance(one, pa.Table) else one.to_arrow() for one in listed]
        joined = merged(tables) if deduplicate else pa.concat_tables(tables, promote_options="default")
        return self._reranked(query, joined)

    def _reranked(self, query: Any, rows: pa.Table) -> pa.Table:
        if self.score == "relevance":
            rows = without(rows, [DISTANCE, SCORE])
        if not rows.num_rows:
            return ordered(without(rows, [RELEVANCE]), np.empty(0, np.float32))
        if self.column not in rows.column_names:
            raise InvalidInputError(
                f"{self} needs the column {self.column!r}, and the results have {', '.join(rows.column_names)}; add it "
                "to select(), or name another with column=…"
            )
        return ordered(rows, self._scores(_query_text(query), rows[self.column]))


class TercetReranker(_ColumnReranker):
    """Orders results by `Engine.score`: a cross-encoder, or any other way in which the model can score.

    Args:
        model: hub id, `id@revision`, local directory, or a name that the server knows.
        inference: as `connect`.
        column: the text; a null counts as an empty one.
        return_score: "relevance" or "all".
        options: as `Engine.score`, such as {"scoring": "maxsim"}.
        choices: as `ConnectChoices`.

    Raises:
        InvalidInputError: a value is not allowed.
    """

    def __init__(
        self,
        model: str,
        inference: Inference | str = LOCAL,
        *,
        column: str = "text",
        return_score: str = "relevance",
        options: Mapping[str, Any] | None = None,
        **choices: Unpack[ConnectChoices],
    ) -> None:
        super().__init__(column, return_score)
        self.model, self.options = model_name(model), dict(score_params(options=options).options)
        self._inference, self._choices = inference, choices

    def __str__(self) -> str:
        return f"TercetReranker({self.model!r})"

    def _scores(self, query: str, column: pa.ChunkedArray) -> NDArray[np.float32]:
        texts = [text or "" for text in column.to_pylist()]
        return connect(self._inference, **self._choices).score(self.model, query, texts, options=self.options).scores


class LateInteractionReranker(_ColumnReranker):
    """Orders results by exact MaxSim of the query's token vectors and those stored with each row.

    Nothing is encoded but the query. `LateInteractionReranker.of(table.schema)` takes model and column from the table.

    Args:
        encoding: how the stored vectors were made; a model's name stands for its defaults.
        inference: as `connect`.
        column: the token vectors, `list<fixed_size_list>`; a null scores 0.
        return_score: "relevance" or "all".
        fingerprint: of the model that made them, to be checked.
        choices: as `ConnectChoices`.

    Raises:
        InvalidInputError: a value is not allowed.
    """

    def __init__(
        self,
        encoding: Encoding | str,
        inference: Inference | str = LOCAL,
        *,
        column: str = COLUMNS["multivector"],
        return_score: str = "relevance",
        fingerprint: Fingerprint | None = None,
        **choices: Unpack[ConnectChoices],
    ) -> None:
        super().__init__(column, return_score)
        self._spec, self._fingerprint = VectorSpec(multivector=encoding), fingerprint
        self._inference, self._choices = inference, choices

    def __str__(self) -> str:
        return f"LateInteractionReranker({self._spec.encodings['multivector'].model!r})"

    @classmethod
    def of(cls, schema: pa.Schema, inference: Inference | str | None = None, **choices: Any) -> LateInteractionReranker:
        """Return the reranker for a table made by `embed_table` or `schema_for`.

        Args:
            schema: the table's.
            inference: as `connect`; None takes the stored one.
            choices: `return_score`.

        Raises:
            InvalidInputError: the table has no token vectors, or does not say how they are made.
        """
        layout = TableLayout.of(schema)
        encoding = layout.spec.multivector
        if encoding is None:
            raise InvalidInputError(
                f"the table has no multivector vectors; it has {', '.join(layout.spec.outputs)}. Rerank by text with "
                "TercetReranker, or fill a table with them"
            )
        reach = dict(layout.choices) if inference is None else {}
        given = layout.inference if inference is None else inference
        return cls(encoding, given, fingerprint=layout.fingerprint, **reach, **choices)

    def _scores(self, query: str, column: pa.ChunkedArray) -> NDArray[np.float32]:
        inference = connect(self._inference, **self._choices)
        if self._fingerprint is not None:
            known.check(inference, self._spec, self._fingerprint, "the table")
        return maxsim(self._spec.encode_query(inference, query)["multivector"], multivectors(column))


def _query_text(query: Any) -> str:
    """Return the words of what LanceDB hands over: a text, or one of its full-text queries."""
    text = query if isinstance(query, str) else getattr(query, "query", None)
    if not isinstance(text, str):
        raise InvalidInputError(
            f"reranking needs the question's text, not {type(query).__name__}; search by text, or give it: "
            "rerank(reranker, query_string=…)"
        )
    return text
