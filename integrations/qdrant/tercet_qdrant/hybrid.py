"""`hybrid_query`: a question into a collection, dense and sparse fused, then late interaction, then a cross-encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import qdrant_client
from qdrant_client import models
from qdrant_client.http.models import QueryResponse  # `models` has another class of that name

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.types import Inference
from tercet.vector_spec import VectorSpec
from tercet_qdrant.checked import acheck_once, check_once
from tercet_qdrant.query import DEFAULT_RECIPE, QueryPoints, Recipe, query_points
from tercet_qdrant.rerank import Reranker
from tercet_qdrant.spec import CollectionSpec, as_spec

WithPayload = bool | Sequence[str] | models.PayloadSelector


def hybrid_query(
    client: qdrant_client.QdrantClient,
    name: str,
    query: str,
    spec: CollectionSpec | VectorSpec,
    *,
    limit: int = 10,
    query_filter: models.Filter | None = None,
    recipe: Recipe = DEFAULT_RECIPE,
    with_payload: WithPayload = True,
    with_vectors: bool | list[str] = False,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
) -> QueryResponse:
    """Return the points that answer a question, best first.

    One request to the store does all but the last step: what of dense and sparse vectors the spec has finds
    candidates, a fusion orders them, the multivector, if there is one, orders them again; then the recipe's
    cross-encoder, here. The spec may leave out vectors that the collection has.

    Args:
        client: of the server or of local mode.
        name: of the collection.
        query: the question.
        spec: the collection's vectors.
        limit: how many points to return.
        query_filter: what they must be like, from the first step on.
        recipe: how they are found and ordered.
        with_payload, with_vectors: what of them to return, as `query_points` takes it.
        inference: what encodes and scores; "local", a server's URL, an Engine or a Client.
        connection: how to reach it, as `connect` takes it.

    Raises:
        ModelMismatchError: the collection holds other models' vectors.
        InvalidInputError: there is no such collection, or the arguments do not go together.
        TercetError: as `Engine.encode` and `Engine.score`.
    """
    question = _Question(query, recipe.asks_for(as_spec(spec)), recipe, limit, query_filter, with_payload)
    encoder = connect(inference, **(connection or {}))
    check_once(client, name, question.spec, encoder)
    found = client.query_points(name, **question.request(encoder), with_vectors=with_vectors)
    return question.answer(encoder, found)


async def ahybrid_query(
    client: qdrant_client.AsyncQdrantClient,
    name: str,
    query: str,
    spec: CollectionSpec | VectorSpec,
    *,
    limit: int = 10,
    query_filter: models.Filter | None = None,
    recipe: Recipe = DEFAULT_RECIPE,
    with_payload: WithPayload = True,
    with_vectors: bool | list[str] = False,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
) -> QueryResponse:
    """As `hybrid_query`, for an asynchronous client; the models run on other threads."""
    question = _Question(query, recipe.asks_for(as_spec(spec)), recipe, limit, query_filter, with_payload)
    encoder = await asyncio.to_thread(connect, inference, **(connection or {}))
    await acheck_once(client, name, question.spec, encoder)
    request = await asyncio.to_thread(question.request, encoder)
    found = await client.query_points(name, **request, with_vectors=with_vectors)
    return await asyncio.to_thread(question.answer, encoder, found)


class _Request(QueryPoints, total=False):
    with_payload: Any


@dataclass(frozen=True, slots=True)
class _Question:
    """What both functions do before the store is asked, and after."""

    query: str
    spec: CollectionSpec
    recipe: Recipe
    limit: int
    query_filter: models.Filter | None
    with_payload: Any

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InvalidInputError(f"limit={self.limit}: ask for at least 1")

    def request(self, encoder: Inference) -> _Request:
        """Return the arguments of `query_points`."""
        reranker = self._reranker()
        limit = max(self.limit, self.recipe.reranked) if reranker else self.limit
        payload = reranker.payload(self.with_payload) if reranker else self.with_payload
        query = self.spec.vectors.encode_query(encoder, self.query)
        return {**query_points(query, self.spec, self.recipe, limit, self.query_filter), "with_payload": payload}

    def answer(self, encoder: Inference, found: QueryResponse) -> QueryResponse:
        """Return what was found, reranked if the recipe says so."""
        if reranker := self._reranker():
            points = reranker.rerank(encoder, self.query, found.points, self.limit, self.with_payload)
            return found.model_copy(update={"points": points})
        return found

    def _reranker(self) -> Reranker | None:
        return Reranker(self.recipe.rerank, self.recipe.text_key) if self.recipe.rerank else None
