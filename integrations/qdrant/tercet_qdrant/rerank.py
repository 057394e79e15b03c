"""The client-side stage: a cross-encoder reads the query with each candidate's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from tercet.errors import InvalidInputError
from tercet.types import Inference
from tercet_qdrant.documents import TEXT


@dataclass(frozen=True, slots=True)
class Reranker:
    """Orders points by a cross-encoder, or another model that scores pairs of texts.

    Attributes:
        model: its id.
        text_key: where the payload holds the text.
    """

    model: str
    text_key: str = TEXT

    def payload(self, wanted: bool | Sequence[str]) -> bool | list[str]:
        """Return what to ask the store for, so that the text is there beside what the caller wants.

        Raises:
            InvalidInputError: the caller wants it in a way that cannot be added to.
        """
        if isinstance(wanted, bool):
            return wanted or [self.text_key]
        if isinstance(wanted, str) or not isinstance(wanted, Sequence):
            raise InvalidInputError("with_payload: give True, False or a list of keys when reranking")
        return [*wanted, self.text_key]

    def rerank(
        self, inference: Inference, query: str, found: Sequence[models.ScoredPoint], limit: int, wanted: Any
    ) -> list[models.ScoredPoint]:
        """Return the best points with the model's scores, best first, equal ones in the order found.

        Args:
            inference: what scores.
            query: the text.
            found: the candidates, with their texts.
            limit: how many to return.
            wanted: the caller's `with_payload`.

        Raises:
            InvalidInputError: a point has no text.
            TercetError: as `Engine.score`.
        """
        texts = [self._text(point) for point in found]
        if not texts:
            return []
        scores = inference.score(self.model, query, texts, top_k=limit)
        return [
            found[row.index].model_copy(update={"score": row.score, "payload": self._kept(found[row.index], wanted)})
            for row in scores
        ]

    def _text(self, point: models.ScoredPoint) -> str:
        text = (point.payload or {}).get(self.text_key)
        if not isinstance(text, str):
            raise InvalidInputError(
                f"point {point.id!r} has no text in its payload under {self.text_key!r}, for {self.model} to "
                "read; name the key with `text_key`, or leave out `rerank`"
            )
        return text

    def _kept(self, point: models.ScoredPoint, wanted: bool | Sequence[str]) -> dict[str, Any] | None:
        """Return the payload without the text if the caller did not ask for it."""
        if wanted is False:
            return None
        if wanted is True or self.text_key in wanted:
            return point.payload
        return {key: value for key, value in (point.payload or {}).items() if key != self.text_key}
