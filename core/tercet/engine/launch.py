"""From a checked request to calls under way and the result that they will make."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from tercet.checkpoints.checkpoint import EncodeSettings, Prepared
from tercet.checkpoints.spec import MultiVectorSpec
from tercet.engine.calls import Call, Columns
from tercet.engine.catalogue import Opened
from tercet.engine.columns import EmbeddingColumns, ScoreColumn
from tercet.engine.dispatcher import Dispatcher
from tercet.engine.feed import Feed, Prepare
from tercet.engine.pending import Pending
from tercet.engine.queue import BatchKey, Lane
from tercet.engine.requests import (
    EncodeRequest,
    ScoreRequest,
    check_encode,
    scored_output,
    scoring_of,
)
from tercet.engine.scoring import best_first, similarity
from tercet.inputs import as_item, as_items, as_query
from tercet.types import Embedding, Embeddings, Item, ItemLike, Scores

# A call of queries up to this size, or of a few documents, is something that somebody waits for.
_INTERACTIVE_QUERIES, _INTERACTIVE_DOCUMENTS = 256, 4


class Launch:
    """Starts encode and score calls.

    Args:
        dispatcher: runs them.
        max_batch_tokens: of one batch.
        pool: tokenises.
    """

    def __init__(self, dispatcher: Dispatcher, max_batch_tokens: int, pool: Executor) -> None:
        self._dispatcher, self._max_batch_tokens, self._pool = dispatcher, max_batch_tokens, pool

    def encode(
        self, request: EncodeRequest, items: ItemLike | Sequence[ItemLike], opened: Opened, here: bool = False
    ) -> Pending[Embedding | Embeddings]:
        """Start encoding; the first window is tokenised on this thread.

        `here` says that this thread waits for it, and may run it.
        """
        listed, single = as_items(items)
        call, columns = self._encode(request, listed, opened, here)

        def finish() -> Embedding | Embeddings:
            embeddings = Embeddings(
                model=opened.spec.id,
                revision=opened.spec.revision,
                ids=_ids(listed),
                tokens=call.tokens,
                truncated=call.truncated,
                timings=call.timings,
                **columns.fields(),
            )
            return embeddings[0] if single else embeddings

        return Pending((call,), finish)

    def score(
        self, request: ScoreRequest, query: ItemLike, items: Sequence[ItemLike], opened: Opened, here: bool = False
    ) -> Pending[Scores]:
        """Start scoring, as `encode` does, by the model's cross-encoder or by encoding both sides."""
        query, (listed, _) = as_query(query), as_items(items)
        scoring = scoring_of(request, opened.spec)
        if scoring == "cross-encoder":
            return self._score_pairs(request, query, listed, opened, here)
        return self._score_embeddings(request, query, listed, opened, scoring, here)

    def _encode(
        self, request: EncodeRequest, items: list[Any], opened: Opened, here: bool
    ) -> tuple[Call, EmbeddingColumns]:
        spec, settings = opened.spec, request.settings
        check_encode(request, spec)
        normalized = bool(getattr(spec.heads.get("dense"), "normalized", False))
        columns = EmbeddingColumns(len(items), request, spec.dims, normalized)

        def prepare(first: int, last: int) -> list[Prepared]:
            chunk = [as_item(item, i) for i, item in enumerate(items[first:last], first)]
            return opened.checkpoint.encode(chunk, settings, first)

        few = _INTERACTIVE_QUERIES if settings.is_query else _INTERACTIVE_DOCUMENTS
        lane = Lane.INTERACTIVE if len(items) <= few else Lane.BULK
        key = BatchKey(opened.resident.name, request.outputs, lane)
        return self._start(columns, len(items), prepare, key, here), columns

    def _score_pairs(
        self, request: ScoreRequest, query: Item, items: list[Any], opened: Opened, here: bool
    ) -> Pending[Scores]:
        own = getattr(opened.spec.heads["score"], "activation", None)
        column = ScoreColumn(len(items), own, request.activation)

        def prepare(first: int, last: int) -> list[Prepared]:
            chunk = [as_item(item, i) for i, item in enumerate(items[first:last], first)]
            return opened.checkpoint.pairs(query, chunk, request.settings, first)

        lane = Lane.INTERACTIVE if len(items) <= _INTERACTIVE_QUERIES else Lane.BULK
        call = self._start(column, len(items), prepare, BatchKey(opened.resident.name, (column.output,), lane), here)
        return Pending((call,), lambda: _scores(request, column.values, items, call, opened))

    def _score_embeddings(
        self, request: ScoreRequest, query: Item, items: list[Any], opened: Opened, scoring: str, here: bool
    ) -> Pending[Scores]:
        output, truncate = scored_output(scoring), request.settings.truncate
        head = opened.spec.heads[output]
        mean = isinstance(head, MultiVectorSpec) and head.mean_over_query
        asked = EncodeRequest(EncodeSettings((output,), is_query=True, truncate=truncate))
        given = EncodeRequest(EncodeSettings((output,), truncate=truncate))
        query_call, query_columns = self._encode(asked, [query], opened, here)
        try:
            call, columns = self._encode(given, items, opened, here)
        except BaseException:
            query_call.cancel()
            raise

        def finish() -> Scores:
            values = similarity(query_columns.fields()[output][0], columns.fields()[output], mean_over_query=mean)
            return _scores(request, values, items, call, opened)

        return Pending((query_call, call), finish)

    def _start(self, columns: Columns, size: int, prepare: Prepare, key: BatchKey, here: bool) -> Call:
        call = Call(size, columns, here=here)
        with self._dispatcher.guests:
            Feed(call, prepare, key, self._dispatcher, self._max_batch_tokens, self._pool).start()
        return call


def _scores(request: ScoreRequest, values: Any, items: list[Any], call: Call, opened: Opened) -> Scores:
    return Scores(
        model=opened.spec.id,
        revision=opened.spec.revision,
        ids=_ids(items),
        scores=np.asarray(values, np.float32),
        order=best_first(values, request.top_k),
        tokens=call.tokens,
        truncated=call.truncated,
        timings=call.timings,
    )


def _ids(items: Sequence[ItemLike]) -> list[str | None]:
    return [item.id if isinstance(item, Item) else None for item in items]
