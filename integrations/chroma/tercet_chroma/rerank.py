"""`Reranker`: Chroma's results in a better order, by a model that reads query and document together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from chromadb.api.types import QueryResult

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.inputs import positive, score_params
from tercet.types import Inference

COLUMNS = ("ids", "embeddings", "documents", "uris", "data", "metadatas", "distances", "scores")


class RankedResult(QueryResult):
    """A `QueryResult` with the scores that its rows are ordered by, best first.

    `distances` keep Chroma's meaning, those of the dense vectors, and need not ascend.
    """

    scores: list[list[float]]


class Reranker:
    """Orders the rows of a `QueryResult` anew; making one does no work.

    Args:
        model: a cross-encoder, or with `options={"scoring": "maxsim"}` any model with token vectors.
        inference: "local" for the engine in this process, a server's URL, or an object that scores.
        options: of `Engine.score`.
        choices: how to reach it: `device`, `precision`, … or `api_key_env`.

    Raises:
        InvalidInputError: an option that does not exist.
    """

    def __init__(
        self,
        model: str,
        inference: Inference | str = LOCAL,
        *,
        options: Mapping[str, Any] | None = None,
        **choices: Unpack[ConnectChoices],
    ) -> None:
        self._options = score_params(options=options).options
        self._model, self._inference, self._choices = model, inference, choices

    def rerank(self, query: str | Sequence[str], result: QueryResult, *, top_k: int | None = None) -> RankedResult:
        """Return the rows of each query, best first, every column that there is in the new order.

        Args:
            query: the question, or the questions, that the result answers.
            result: from `collection.query(…)`, with the documents included.
            top_k: keep so many rows of each.

        Raises:
            InvalidInputError: the result has no documents, or answers another number of questions.
            TercetError: as `Engine.score`.
        """
        positive("top_k", top_k)
        queries = [query] if isinstance(query, str) else list(query)
        documents = _documents(queries, result)
        inference = connect(self._inference, **self._choices)
        orders, scores = [], []
        for text, texts in zip(queries, documents, strict=True):
            ranked = inference.score(self._model, text, texts, options=self._options) if texts else []
            orders.append([row.index for row in ranked][:top_k])
            scores.append([row.score for row in ranked][:top_k])
        return cast(RankedResult, {**reordered(result, orders), "scores": scores})


def reordered(result: QueryResult, orders: Sequence[Sequence[int]]) -> QueryResult:
    """Return a result whose rows of each query are those at the given positions."""
    columns = cast(dict[str, Any], result)
    return cast(
        QueryResult,
        {
            name: _reordered(column, orders) if name in COLUMNS and column is not None else column
            for name, column in columns.items()
        },
    )


def _reordered(column: Sequence[Any], orders: Sequence[Sequence[int]]) -> list[Any]:
    moved = []
    for rows, order in zip(column, orders, strict=True):
        moved.append([rows[i] for i in order] if isinstance(rows, list) else rows[list(order)])
    return moved


def _documents(queries: Sequence[str], result: QueryResult) -> list[list[str]]:
    documents = result["documents"]
    if documents is None or any(text is None for rows in documents for text in rows):
        raise InvalidInputError(
            "the result has no documents to read, or not for every row; query with include=['documents', …] a "
            "collection that stores them"
        )
    if len(documents) != len(queries):
        raise InvalidInputError(f"the result answers {len(documents)} queries, not {len(queries)}; give each its text")
    return documents
