"""What a hybrid query returns: Chroma's `QueryResult`, filled in the order of a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from chromadb.api.types import Include, validate_include
from numpy.typing import NDArray

from tercet.errors import InvalidInputError
from tercet_chroma.rerank import COLUMNS, RankedResult
from tercet_chroma.store import Store

Ranking = Mapping[str, float]  # ids and their scores, best first


def ranked_result(
    store: Store, rankings: Sequence[Ranking], queries: Sequence[NDArray[Any]], include: Include
) -> RankedResult:
    """Return the records of each ranking, best first; what has been deleted since it was found is left out.

    Args:
        store: holds the records.
        rankings: one per query.
        queries: their dense vectors, (d,) each, which distances are measured from.
        include: as of Chroma's `query`.
    """
    fields = [name for name in include if name != "distances"]
    needed = [*dict.fromkeys([*fields, "embeddings"])] if "distances" in include else fields
    space = _space(store.collection.configuration_json)
    columns: dict[str, Any] = {name: [] for name in ("ids", "scores", *include)}
    for ranking, query in zip(rankings, queries, strict=True):
        found = _fetched(store, list(ranking), needed)
        columns["ids"].append(list(found))
        columns["scores"].append([ranking[key] for key in found])
        for name in fields:
            columns[name].append(_column(name, found))
        if "distances" in include:
            columns["distances"].append(_distances(space, query, _column("embeddings", found)))
    return cast(RankedResult, {name: columns.get(name) for name in COLUMNS} | {"included": list(include)})


def checked_include(include: Sequence[str]) -> Include:
    """Return what is to be included, as Chroma wants it.

    Raises:
        ValueError: something that Chroma does not know, or that needs its data loaders.
    """
    listed = cast(Include, list(include))
    validate_include(listed, dissalowed=cast(Include, ["data"]))
    return listed


def _fetched(store: Store, ids: Sequence[str], include: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the fields of the records that exist, in the order of the ids."""
    if not ids:
        return {}
    found = cast(dict[str, Any], store.call(store.collection.get, ids=list(ids), include=cast(Include, list(include))))
    rows = {key: {name: found[name][i] for name in include} for i, key in enumerate(found["ids"])}
    return {key: rows[key] for key in ids if key in rows}


def _column(name: str, found: Mapping[str, Mapping[str, Any]]) -> Any:
    values = [row[name] for row in found.values()]
    return np.array(values) if name == "embeddings" else values


def _distances(space: str, query: NDArray[Any], vectors: NDArray[Any]) -> list[float]:
    """Return the distances from the query as Chroma defines them."""
    if not len(vectors):
        return []
    products = vectors @ query.astype(vectors.dtype)
    if space == "l2":
        return ((vectors - query) ** 2).sum(axis=1).tolist()  # type: ignore[no-any-return]
    if space == "cosine":
        products = products / np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(query), 1e-12)
    return (1 - products).tolist()  # type: ignore[no-any-return]


def _space(configuration: Mapping[str, Any]) -> str:
    for index in ("hnsw", "spann"):
        if (settings := configuration.get(index)) and "space" in settings:
            return str(settings["space"])
    raise InvalidInputError("Chroma does not say in which space the collection measures distances")
