"""The methods of a client but for doing them: plans of calls on many items, steps of calls on models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar
from urllib.parse import quote

import httpx

from tercet.client.exchange import Retries, Steps, Wire, exchange
from tercet.client.parts import EmbeddingParts, ScoreParts
from tercet.client.plan import Plan, cut
from tercet.deadline import Deadline
from tercet.errors import EngineClosedError, InvalidInputError, OverloadedError
from tercet.inputs import as_items, as_query, encode_params, model_name, positive, score_params
from tercet.types import Embeddings, EncodeKeywords, ItemLike, ModelInfo, Progress, ScoreKeywords, Scores
from tercet.version import __version__
from tercet.wire import ARROW, JSON
from tercet.wire.columns import read_embeddings_stream, read_scores_stream
from tercet.wire.models import read_model
from tercet.wire.requests import checked_item, encode_document, score_document
from tercet.wire.results import read_embeddings, read_scores

T = TypeVar("T")

_ANSWERS: Mapping[str, str] = {"arrow": ARROW, "json": JSON}
_ONCE = Retries(limit=0)

# The server keeps idle connections longer, so that none is closed just as it is used again.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60)


class ClientChoices(TypedDict, total=False):
    """How a client behaves, as `Client` documents it."""

    api_key: str | None
    wait_for_capacity: bool
    retries: int
    max_concurrency: int
    answers: Literal["arrow", "json"]


class Calls:
    """What each method of a client asks of the server; arguments as `Client` documents them.

    Attributes:
        url: of the server, without a slash at its end.
        max_concurrency: how many requests of one call may be under way at once.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        wait_for_capacity: bool = False,
        retries: int = 3,
        max_concurrency: int = 4,
        answers: str = "arrow",
    ) -> None:
        if answers not in _ANSWERS:
            raise InvalidInputError(f"answers: {answers!r} is not one of {', '.join(_ANSWERS)}")
        if retries:
            positive("retries", retries)
        headers = {"user-agent": f"tercet/{__version__}"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self.url = _server(url)
        self.max_concurrency = positive("max_concurrency", max_concurrency) or 1
        self._wire = Wire(headers, Retries(retries, wait_for_capacity), _ANSWERS[answers])

    def encode(
        self, model: str, items: ItemLike | Sequence[ItemLike], keywords: EncodeKeywords
    ) -> tuple[Plan[Embeddings], bool]:
        """Return the plan of an encode call, and whether it was given a single item.

        Raises:
            InvalidInputError: as the engine does, wherever it needs no model for that.
        """
        deadline, progress, choices = _told(keywords)
        params, path = encode_params(**choices), _path("encode", model)
        listed, single = as_items(items)
        checked = [checked_item(item, i) for i, item in enumerate(listed)]
        plan = Plan(
            wire=self._wire,
            path=path,
            items=checked,
            document=encode_document(params),
            read=self._reader(read_embeddings_stream, read_embeddings),
            cuts=list(cut(checked, token_vectors="multivector" in params.output_types)),
            parts=EmbeddingParts(len(checked)),
            deadline=deadline,
            progress=progress,
        )
        return plan, single

    def score(self, model: str, query: ItemLike, items: Sequence[ItemLike], keywords: ScoreKeywords) -> Plan[Scores]:
        """Return the plan of a score call.

        Raises:
            InvalidInputError: as the engine does, wherever it needs no model for that.
        """
        deadline, progress, choices = _told(keywords)
        params, path = score_params(**choices), _path("score", model)
        asked = as_query(query)
        checked = [checked_item(item, i) for i, item in enumerate(as_items(items)[0])]
        return Plan(
            wire=self._wire,
            path=path,
            items=checked,
            document=score_document(params, asked),
            read=self._reader(read_scores_stream, read_scores),
            cuts=list(cut(checked, token_vectors=False)),
            parts=ScoreParts(len(checked), params.top_k),
            deadline=deadline,
            progress=progress,
        )

    def models(self) -> Steps[list[ModelInfo]]:
        """Ask what is known of every model."""
        return exchange(self._wire, "GET", "/v1/models", _read_models, Deadline.after(None))

    def describe(self, model: str, timeout_s: float | None) -> Steps[ModelInfo]:
        """Ask what is known of one model."""
        return exchange(self._wire, "GET", _path("models", model), _read_model, Deadline.after(timeout_s))

    def load(self, model: str, timeout_s: float | None) -> Steps[ModelInfo]:
        """Ask for a model to be made resident."""
        return self._act(model, "load", {}, Deadline.after(timeout_s))

    def pin(self, model: str, pinned: bool, timeout_s: float | None) -> Steps[ModelInfo]:
        """Ask for a model to be kept resident, or no longer."""
        return self._act(model, "pin", {"pinned": pinned}, Deadline.after(timeout_s))

    def unload(self, model: str) -> Steps[bool]:
        """Ask for a model's weights to be dropped; False while it is in use, without asking twice."""
        wire = Wire(self._wire.headers, _ONCE)
        try:
            yield from exchange(wire, "POST", _path("models", model, "unload"), bytes, Deadline.after(None))
        except OverloadedError:
            return False
        return True

    def _act(self, model: str, action: str, body: Mapping[str, Any], deadline: Deadline) -> Steps[ModelInfo]:
        path, sent = _path("models", model), (JSON, json.dumps(body).encode())
        yield from exchange(self._wire, "POST", f"{path}/{action}", bytes, deadline, body=sent)
        return (yield from exchange(self._wire, "GET", path, _read_model, deadline))

    def _reader(self, stream: Callable[[bytes], T], document: Callable[[Any], T]) -> Callable[[bytes], T]:
        return stream if self._wire.answers == ARROW else lambda body: document(_json(body))


def closed_error() -> EngineClosedError:
    """Return the error for a client that is used after its end."""
    return EngineClosedError("this client was closed; make another")


def _told(keywords: EncodeKeywords | ScoreKeywords) -> tuple[Deadline, Progress | None, dict[str, Any]]:
    """Return how a caller waits, and the rest of what it says."""
    choices: dict[str, Any] = dict(keywords)
    return Deadline.after(choices.pop("timeout_s", None)), choices.pop("progress", None), choices


def _server(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidInputError(f"url={url!r} is no address of a server: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(f"url={url!r} is no address of a server; give one such as http://localhost:8080")
    return url.rstrip("/")


def _path(action: str, model: str, *more: str) -> str:
    return "/".join(["/v1", action, quote(model_name(model), safe="/@:"), *more])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not JSON: {error}") from None


def _read_model(body: bytes) -> ModelInfo:
    return read_model(_json(body))


def _read_models(body: bytes) -> list[ModelInfo]:
    document = _json(body)
    if not isinstance(document, dict) or not isinstance(document.get("models"), list):
        raise InvalidInputError("no object with a list of models")
    return [read_model(one) for one in document["models"]]
