"""One hybrid query as data: legs that find candidates, their fusion, and late interaction that settles the order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from qdrant_client import models

from tercet.errors import InvalidInputError
from tercet.types import Output
from tercet.vector_spec import VectorSpec
from tercet_qdrant import vectors
from tercet_qdrant.documents import TEXT
from tercet_qdrant.spec import CollectionSpec, as_spec

_LEGS: tuple[Output, ...] = ("dense", "sparse")
_FUSIONS = (models.FusionQuery, models.RrfQuery, models.FormulaQuery)

Fusion = str | models.FusionQuery | models.RrfQuery | models.FormulaQuery


class QueryPoints(TypedDict, total=False):
    """The arguments of `query_points`, which both clients take."""

    prefetch: list[models.Prefetch]
    query: Any
    using: str
    limit: int
    query_filter: models.Filter
    search_params: models.SearchParams


@dataclass(frozen=True)
class Recipe:
    """How points are found and ordered.

    Attributes:
        candidates: how many each leg finds, and how many late interaction reads.
        fusion: of dense and sparse: "rrf", "dbsf", or a query of Qdrant's own, a `models.FormulaQuery` for example.
        rrf_k: of reciprocal rank fusion. Qdrant counts ranks from 0 and takes 2 by default; 60 is usual elsewhere.
        weights: of the two under "rrf": `{"dense": 2.0, "sparse": 1.0}`.
        late_interaction: order by MaxSim; None does so where the spec has a multivector.
        search_params: of the dense leg; None takes the spec's own.
        rerank: a cross-encoder, which has the last word. reranked: how many points it reads.
        text_key: where the payload holds their texts.

    Raises:
        InvalidInputError: values that do not go together.
    """

    candidates: int = 100
    fusion: Fusion = "rrf"
    rrf_k: int = 60
    weights: Mapping[str, float] | None = None
    late_interaction: bool | None = None
    search_params: models.SearchParams | None = None
    rerank: str | None = None
    reranked: int = 30
    text_key: str = TEXT

    def __post_init__(self) -> None:
        for name in ("candidates", "rrf_k", "reranked"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name}={getattr(self, name)}: give at least 1")
        if self.fusion not in ("rrf", "dbsf") and not isinstance(self.fusion, _FUSIONS):
            raise InvalidInputError(f"fusion={self.fusion!r}: choose 'rrf' or 'dbsf', or give a models.FormulaQuery")
        if self.weights is not None and self.fusion != "rrf":
            raise InvalidInputError("weights are for fusion='rrf'; weigh scores otherwise with a models.FormulaQuery")

    def asks_for(self, spec: CollectionSpec) -> CollectionSpec:
        """Return the spec of the vectors that a query needs.

        Raises:
            InvalidInputError: late interaction without a multivector, or a multivector alone and no late interaction.
        """
        given = spec.vectors
        if self.late_interaction and given.multivector is None:
            raise InvalidInputError("late_interaction=True needs a multivector, which the spec has not")
        if self.late_interaction is not False or given.multivector is None:
            return spec
        if given.dense is None and given.sparse is None:
            raise InvalidInputError("late_interaction=False leaves nothing to search; the spec has a multivector alone")
        return replace(spec, vectors=VectorSpec(dense=given.dense, sparse=given.sparse))

    def fuse(self, legs: list[Output]) -> Any:
        """Return the query that orders what the legs have found.

        Raises:
            InvalidInputError: weights for other legs than these.
        """
        if self.fusion == "dbsf":
            return models.FusionQuery(fusion=models.Fusion.DBSF)
        if self.fusion != "rrf":
            return self.fusion
        if self.weights is None:
            return models.RrfQuery(rrf=models.Rrf(k=self.rrf_k))
        if set(self.weights) != set(legs):
            raise InvalidInputError(f"weights={dict(self.weights)}: give one for each of {', '.join(legs)}")
        return models.RrfQuery(rrf=models.Rrf(k=self.rrf_k, weights=[self.weights[output] for output in legs]))


DEFAULT_RECIPE = Recipe()


def query_points(
    query: Mapping[Output, Any],
    spec: CollectionSpec | VectorSpec,
    recipe: Recipe = DEFAULT_RECIPE,
    limit: int = 10,
    query_filter: models.Filter | None = None,
) -> QueryPoints:
    """Return the arguments of `query_points` for a query whose vectors are made.

    Args:
        query: the vectors by output, as `VectorSpec.encode_query` returns them; what is there is used.
        spec: what the vectors are called.
        recipe: how points are found and ordered.
        limit: how many to return.
        query_filter: what they must be like. Each leg has it: one at the end would come too late.

    Raises:
        InvalidInputError: weights for other legs than there are.
    """
    legs = [output for output in _LEGS if output in query]
    plan = _Plan(query, as_spec(spec), recipe, max(limit, recipe.candidates), query_filter)
    if "multivector" in query:
        return plan.late_interaction(legs, limit)
    if len(legs) == 1:
        return plan.alone(legs[0], limit)
    return {"prefetch": [plan.leg(output) for output in legs], "query": recipe.fuse(legs), "limit": limit}


@dataclass(frozen=True, slots=True)
class _Plan:
    """A query, and how deep its legs go."""

    query: Mapping[Output, Any]
    spec: CollectionSpec
    recipe: Recipe
    depth: int
    query_filter: models.Filter | None

    def leg(self, output: Output) -> models.Prefetch:
        """Return the search for candidates by one kind of vector."""
        return models.Prefetch(
            query=vectors.vector(self.query[output]),
            using=self.spec.name(output),
            limit=self.depth,
            filter=self.query_filter,
            params=self._params(output),
        )

    def alone(self, output: Output, limit: int) -> QueryPoints:
        """Return the search by one kind of vector and nothing after it."""
        request = QueryPoints(query=vectors.vector(self.query[output]), using=self.spec.name(output), limit=limit)
        if self.query_filter is not None:
            request["query_filter"] = self.query_filter
        if params := self._params(output):
            request["search_params"] = params
        return request

    def late_interaction(self, legs: list[Output], limit: int) -> QueryPoints:
        """Return the search by MaxSim: among what the legs have found, or among all points if there are none."""
        if not legs:
            return self.alone("multivector", limit)
        found = [self.leg(output) for output in legs]
        if len(legs) > 1:
            found = [models.Prefetch(prefetch=found, query=self.recipe.fuse(legs), limit=self.depth)]
        return {"prefetch": found, **self._last(limit)}

    def _last(self, limit: int) -> QueryPoints:
        return QueryPoints(
            query=vectors.vector(self.query["multivector"]), using=self.spec.name("multivector"), limit=limit
        )

    def _params(self, output: Output) -> models.SearchParams | None:
        return (self.recipe.search_params or self.spec.search_params()) if output == "dense" else None
