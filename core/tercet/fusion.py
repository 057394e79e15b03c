"""Rankings without a model: fusing result lists, exact MaxSim, sparse dot products, top-k. Numpy only."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet.errors import InvalidInputError
from tercet.quantize import dequantize
from tercet.types import MultiVectorBatch, SparseBatch, SparseVector

K = TypeVar("K", bound=Hashable)
Normalization = Literal["min-max"]
Fusion = Literal["ranks", "scores"]

_MAXSIM_CHUNK = 1 << 23  # numbers of documents, or similarities, held at once: 64 MB of float64


def rrf(rankings: Sequence[Iterable[K]], *, k: float = 60.0, weights: Sequence[float] | None = None) -> dict[K, float]:
    """Return score(d) = Σ_r weight_r / (k + rank_r(d)), best first, ranks from 1; Cormack et al. 2009 (SIGIR).

    A ranking that does not hold a document adds nothing to it. Ties keep the order in which documents first appear.

    Args:
        rankings: each the documents' keys, best first.
        k: how slowly rank matters less; positive.
        weights: one per ranking, default 1.

    Raises:
        InvalidInputError: k is not positive, weights do not fit the rankings, or a ranking names a document twice.
    """
    if not k > 0:
        raise InvalidInputError(f"k={k}: give a positive number; 60 is usual")
    fused: dict[K, float] = {}
    for ranking, weight in _weighted(rankings, weights):
        keys = list(ranking)
        if len(set(keys)) < len(keys):
            raise InvalidInputError("a ranking names a document twice; give each key once, at its best rank")
        for rank, key in enumerate(keys, start=1):
            fused[key] = fused.get(key, 0.0) + weight / (k + rank)
    return _best_first(fused)


def weighted_sum(
    results: Sequence[Mapping[K, float]],
    *,
    weights: Sequence[float] | None = None,
    normalize: Normalization | None = "min-max",
) -> dict[K, float]:
    """Return score(d) = Σ_r weight_r · n(score_r(d)), best first; a result list without d adds nothing.

    Under "min-max", n(s) = (s − min) / (max − min) within each list, and 1 where all its scores are equal; under None,
    n(s) = s. Ties keep the order in which documents first appear.

    Args:
        results: each from the documents' keys to scores, higher is better.
        weights: one per list, default 1.

    Raises:
        InvalidInputError: a score is not finite, weights do not fit the lists, or the normalisation is unknown.
    """
    if normalize not in ("min-max", None):
        raise InvalidInputError(f"normalize={normalize!r}: choose 'min-max' or None")
    fused: dict[K, float] = {}
    for result, weight in _weighted(results, weights):
        scores = np.fromiter(result.values(), np.float64, len(result))
        if not np.isfinite(scores).all():
            raise InvalidInputError("a score to fuse is not finite; leave such documents out of the list")
        if normalize:
            scores = _min_max(scores)
        for key, score in zip(result, scores.tolist(), strict=True):
            fused[key] = fused.get(key, 0.0) + weight * score
    return _best_first(fused)


def fuse(
    results: Sequence[Mapping[K, float]],
    *,
    by: Fusion = "ranks",
    k: float = 60.0,
    weights: Sequence[float] | None = None,
) -> dict[K, float]:
    """Return result lists as one, best first: by reciprocal ranks (`rrf`) or by scaled scores (`weighted_sum`).

    Ranks need no scale and say nothing of how sure a list is; scores do. docs/quality.md has both measured.

    Args:
        results: each from the documents' keys to scores, best first, higher is better.
        by: "ranks" or "scores".
        k: of ranks.
        weights: one per list, default 1.

    Raises:
        InvalidInputError: as `rrf` and `weighted_sum`, or another `by`.
    """
    if by == "ranks":
        return rrf(results, k=k, weights=weights)
    if by == "scores":
        return weighted_sum(results, weights=weights)
    raise InvalidInputError(f"fuse by {by!r}: choose 'ranks' or 'scores'")


def maxsim(query: NDArray[Any], documents: MultiVectorBatch | Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return Σ_i max_j q_i·d_j for each document, (n,); Khattab & Zaharia 2020, arXiv:2004.12832.

    Computed in float64, so that equal documents have equal scores. A document without tokens scores 0, as does every
    document for a query without tokens.

    Args:
        query: (query tokens, d) floats.
        documents: packed, or one (tokens, d) matrix each; int8 and uint8 batches carry their quantization.

    Raises:
        InvalidInputError: widths differ, or vectors are packed bits.
    """
    query, batch = dequantize(query), _packed(documents, query.shape[1])
    scores = np.zeros(len(batch), np.float32)
    for first, last in _chunks(batch.offsets, max(1, _MAXSIM_CHUNK // max(1, *query.shape))):
        scores[first:last] = _maxsim(query, batch, first, last)
    return scores


def sparse_dot(query: SparseVector, documents: SparseBatch) -> NDArray[np.float32]:
    """Return the dot product of the query with each document, (n,)."""
    if not len(query):
        return np.zeros(len(documents), np.float32)
    places = np.searchsorted(query.indices, documents.indices)
    places[places == len(query)] = 0
    matches = np.flatnonzero(query.indices[places] == documents.indices)
    products = query.values[places[matches]].astype(np.float64) * documents.values[matches]
    rows = np.searchsorted(documents.indptr, matches, side="right") - 1
    return np.bincount(rows, weights=products, minlength=len(documents)).astype(np.float32)


def top_k(scores: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return the positions of the k highest scores, best first, equal scores in their order; all of them if fewer.

    Args:
        scores: (n,), without NaN.

    Raises:
        InvalidInputError: k is below 1, scores are not one-dimensional or hold NaN.
    """
    values = np.asarray(scores, np.float64)
    if k < 1:
        raise InvalidInputError(f"top_k={k}: ask for at least 1")
    if values.ndim != 1 or np.isnan(values).any():
        raise InvalidInputError(f"scores of shape {values.shape}: give one number per document, without NaN")
    if k >= len(values):
        return np.argsort(-values, kind="stable")
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    better = np.flatnonzero(values > threshold)
    ties = np.flatnonzero(values == threshold)[: k - len(better)]
    return np.concatenate([better[np.argsort(-values[better], kind="stable")], ties])


def _packed(documents: MultiVectorBatch | Sequence[NDArray[Any]], dims: int) -> MultiVectorBatch:
    """Return the documents as one batch, all `dims` wide."""
    for matrix in [documents.values] if isinstance(documents, MultiVectorBatch) else documents:
        if matrix.shape[1] != dims:
            raise InvalidInputError(
                f"the query's vectors have {dims} dimensions, a document's {matrix.shape[1]}; "
                "encode both with the same model and `dimensions`"
            )
    if isinstance(documents, MultiVectorBatch):
        return documents
    return MultiVectorBatch.from_rows([dequantize(matrix) for matrix in documents], dims)


def _maxsim(query: NDArray[np.float32], documents: MultiVectorBatch, first: int, last: int) -> NDArray[np.float32]:
    """Return the scores of documents `first` up to `last`."""
    offsets = documents.offsets[first : last + 1]
    tokens = slice(int(offsets[0]), int(offsets[-1]))
    quantization = documents.quantization and documents.quantization[tokens]
    values = dequantize(documents.values[tokens], quantization)
    scores = np.zeros(last - first, np.float32)
    filled = np.flatnonzero(np.diff(offsets))  # reduceat takes no empty segments
    if len(filled):
        # In float64, since a BLAS product in float32 rounds equal rows differently, and equal documents are to tie.
        similarities = values.astype(np.float64) @ query.T.astype(np.float64)
        best = np.maximum.reduceat(similarities, offsets[filled] - offsets[0], axis=0)  # (documents, query tokens)
        scores[filled] = best.sum(axis=1)
    return scores


def _chunks(offsets: NDArray[np.int64], tokens: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of documents of at most so many tokens together, one document at least."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + tokens, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


T = TypeVar("T")


def _weighted(lists: Sequence[T], weights: Sequence[float] | None) -> Iterator[tuple[T, float]]:
    if weights is not None and len(weights) != len(lists):
        raise InvalidInputError(f"{len(weights)} weights for {len(lists)} result lists; give one each")
    return zip(lists, repeat(1.0) if weights is None else weights, strict=False)


def _min_max(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(scores) or scores.min() == scores.max():
        return np.ones_like(scores)
    normalized: NDArray[np.float64] = (scores - scores.min()) / (scores.max() - scores.min())
    return normalized


def _best_first(scores: Mapping[K, float]) -> dict[K, float]:
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))
