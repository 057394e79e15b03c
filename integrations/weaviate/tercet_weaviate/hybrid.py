"""`hybrid` and `ahybrid`: Weaviate's hybrid search with query vectors made here, then its candidates read again.

Weaviate fuses BM25 and one kind of vector, but cannot score candidates token by token; that is done on this side, by
MaxSim over the multivectors that it stored or by a cross-encoder over their texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from weaviate.classes.query import MetadataQuery
from weaviate.collections import Collection, CollectionAsync
from weaviate.collections.classes.internal import Object, QueryReturn

from tercet.connect import LOCAL, connect
from tercet.errors import InvalidInputError
from tercet.fusion import maxsim, top_k
from tercet.types import Inference, Output
from tercet.vector_spec import VectorSpec
from tercet_weaviate.collection import check_collection, check_config, known
from tercet_weaviate.config import TEXT
from tercet_weaviate.objects import DIGEST

Found = QueryReturn[Any, Any]

MAXSIM = "maxsim"
CANDIDATES = 100


def hybrid(
    collection: Collection[Any, Any],
    query: str,
    spec: VectorSpec,
    inference: Inference | str = LOCAL,
    *,
    alpha: float | None = None,
    limit: int = 10,
    rerank: str | None = None,
    candidates: int = CANDIDATES,
    text: str = TEXT,
    include_vector: bool | str | list[str] = False,
    **choices: Any,
) -> Found:
    """Return the best objects as Weaviate's `query.hybrid` does, best first, perhaps in a better order.

    Args:
        collection: filled by `import_objects`.
        query: the question, for words and vectors alike.
        spec: the collection's vectors; the dense one is searched, or the multivector where there is none.
        inference: what encodes the query, and scores.
        alpha: how much vectors count, from 0 to 1; None is Weaviate's default.
        limit: how many objects to return.
        rerank: "maxsim" over the stored multivectors, or the id of a cross-encoder; its scores are the objects'
            `metadata.rerank_score`, beside Weaviate's `metadata.score`.
        candidates: how many objects are read again.
        text: the property that a cross-encoder reads.
        include_vector: the vectors to return, as for Weaviate.
        choices: further keywords of `query.hybrid`: `filters`, `query_properties`, `fusion_type`, `return_properties` …

    Raises:
        ModelMismatchError: the collection holds other models' vectors.
        InvalidInputError: a wrong argument, or a candidate without what is to be read.
        TercetError: as `Engine.encode` and `Engine.score`.
        WeaviateBaseError: Weaviate could not answer.
    """
    search = _Search(query, spec, connect(inference), alpha, limit, rerank, candidates, text, include_vector, choices)
    check_collection(collection, spec, search.inference)
    return search.ranked(collection.query.hybrid(**search.arguments()))


async def ahybrid(
    collection: CollectionAsync[Any, Any],
    query: str,
    spec: VectorSpec,
    inference: Inference | str = LOCAL,
    *,
    alpha: float | None = None,
    limit: int = 10,
    rerank: str | None = None,
    candidates: int = CANDIDATES,
    text: str = TEXT,
    include_vector: bool | str | list[str] = False,
    **choices: Any,
) -> Found:
    """Do what `hybrid` does with a collection of an asynchronous client; models run on a thread meanwhile."""
    reached = await asyncio.to_thread(connect, inference)
    search = _Search(query, spec, reached, alpha, limit, rerank, candidates, text, include_vector, choices)
    if not known(collection, spec, reached):
        config = await collection.config.get()
        await asyncio.to_thread(check_config, collection, config, spec, reached)
    found = await collection.query.hybrid(**await asyncio.to_thread(search.arguments))
    return await asyncio.to_thread(search.ranked, found)


@dataclass(frozen=True)
class _Search:
    """One search: what to ask Weaviate, and what to make of its answer."""

    query: str
    spec: VectorSpec
    inference: Inference
    alpha: float | None
    limit: int
    rerank: str | None
    candidates: int
    text: str
    include_vector: bool | str | list[str]
    choices: dict[str, Any]

    def __post_init__(self) -> None:
        if self.limit < 1 or self.candidates < 1:
            raise InvalidInputError(f"limit={self.limit}, candidates={self.candidates}: both are 1 at least")
        if self.rerank == MAXSIM and self.spec.multivector is None:
            raise InvalidInputError(
                "rerank='maxsim' compares multivectors, and the spec has none; give it a `multivector` model and "
                "import the documents with it, or rerank by a cross-encoder's id"
            )
        if self.rerank and self.choices.get("group_by"):
            raise InvalidInputError("groups cannot be reranked; leave out group_by or rerank")

    @cached_property
    def vectors(self) -> dict[Output, Any]:
        """The query's vectors, those that are needed."""
        needed: list[Output] = [self._target] + (["multivector"] if self.rerank == MAXSIM else [])
        models: Any = {output: self.spec.encodings[output] for output in needed}
        return VectorSpec(**models).encode_query(self.inference, self.query)

    def arguments(self) -> dict[str, Any]:
        """Return the keywords for Weaviate's search."""
        include = self._included
        if self.rerank == MAXSIM and include is not True:
            include = sorted({*include, "multivector"})
        return {
            "return_metadata": MetadataQuery(score=True),
            **self.choices,
            "query": self.query,
            "alpha": self.alpha,
            "vector": self.vectors[self._target].astype(np.float32),
            "target_vector": self._target,
            "limit": max(self.limit, self.candidates) if self.rerank else self.limit,
            "include_vector": include,
        }

    def ranked(self, found: Found) -> Found:
        """Return what was found in its final order."""
        if "return_properties" not in self.choices and "group_by" not in self.choices:
            for each in found.objects:
                each.properties.pop(DIGEST, None)  # which nobody asked for
        if not self.rerank or not found.objects:
            return found
        scores = self._scores(found.objects)
        order = top_k(scores, self.limit)
        best = [found.objects[i] for i in order]
        for each, score in zip(best, scores[order].tolist(), strict=True):
            each.metadata.rerank_score = score
            if self._included is not True and "multivector" not in self._included:
                each.vector.pop("multivector", None)
        return replace(found, objects=best)

    @property
    def _target(self) -> Output:
        return "dense" if self.spec.dense is not None else "multivector"

    @property
    def _included(self) -> Literal[True] | list[str]:
        """The vectors to return: all, or those of these names."""
        given = self.include_vector
        if isinstance(given, bool):
            return given or []
        return [given] if isinstance(given, str) else given

    def _scores(self, objects: Sequence[Object[Any, Any]]) -> NDArray[np.float32]:
        if self.rerank == MAXSIM:
            return maxsim(self.vectors["multivector"], [_matrix(each) for each in objects])
        assert self.rerank is not None
        return self.inference.score(self.rerank, self.query, [self._text(each) for each in objects]).scores

    def _text(self, each: Object[Any, Any]) -> str:
        text = each.properties.get(self.text)
        if not isinstance(text, str):
            raise InvalidInputError(
                f"object {each.uuid} came without a text in {self.text!r} to rerank it by; name the right property in "
                "`text`, and do not leave it out of return_properties"
            )
        return text


def _matrix(each: Object[Any, Any]) -> NDArray[np.float32]:
    """Return an object's token vectors, (tokens, d)."""
    if "multivector" not in each.vector:
        raise InvalidInputError(f"object {each.uuid} has no multivector to rerank it by; store it by import_objects")
    return np.asarray(each.vector["multivector"], np.float32)
