"""`Client`: encode and score on a server, from threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Self, TypeVar, Unpack, overload

import httpx

from tercet.client.calls import LIMITS, Calls, ClientChoices, closed_error
from tercet.client.exchange import Pause, Reply, Send, Steps, transport_error
from tercet.client.plan import Plan, R
from tercet.errors import TercetError, TransportError
from tercet.threads import side_by_side
from tercet.types import (
    Embedding,
    Embeddings,
    EncodeKeywords,
    ItemLike,
    ModelInfo,
    ScoreKeywords,
    Scores,
)

T = TypeVar("T")


class Client:
    """Does on a server what `Engine` does in process: the same methods, results and exceptions. Thread-safe.

    Long inputs are cut into requests that run at the same time; results come back in the order of the items, as Arrow,
    and are the caller's own memory. Requests that fail for want of capacity or connection are sent again.

    Args:
        url: of the server.
        http_client: sends the requests in place of one of its own: for proxies, certificates, or tests without a
            socket. It is not closed.
        choices: `api_key`, sent as a bearer token. `wait_for_capacity`: keep trying for as long as the server is busy,
            loading or restarting; the `timeout_s` of each call still ends it. `retries` (3): how often a failed
            request is sent again otherwise. `max_concurrency` (4): requests under way at once for the parts of one
            long input. `answers`: "arrow", or "json" for results that can be read on the way.

    Raises:
        InvalidInputError: a value is not one of those above.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        http_client: httpx.Client | None = None,
        **choices: Unpack[ClientChoices],
    ) -> None:
        self._calls = Calls(url, **choices)
        self._http = http_client or httpx.Client(limits=LIMITS)
        self._owned = http_client is None
        self._closed = False

    @overload
    def encode(  # type: ignore[overload-overlap]
        self, model: str, items: ItemLike, **keywords: Unpack[EncodeKeywords]
    ) -> Embedding: ...
    @overload
    def encode(self, model: str, items: Sequence[ItemLike], **keywords: Unpack[EncodeKeywords]) -> Embeddings: ...
    def encode(
        self, model: str, items: ItemLike | Sequence[ItemLike], **keywords: Unpack[EncodeKeywords]
    ) -> Embedding | Embeddings:
        """Return the outputs of one item, or of a list of items as columns in the same order; see `Engine.encode`.

        Raises:
            TercetError: as the engine; TransportError where the server cannot be reached.
        """
        plan, single = self._calls.encode(model, items, keywords)
        whole = self._run(plan)
        return whole[0] if single else whole

    def score(
        self, model: str, query: ItemLike, items: Sequence[ItemLike], **keywords: Unpack[ScoreKeywords]
    ) -> Scores:
        """Return the items scored against the query, best first, ties in the order given; see `Engine.score`.

        Raises:
            TercetError: as the engine; TransportError where the server cannot be reached.
        """
        return self._run(self._calls.score(model, query, items, keywords))

    def models(self) -> list[ModelInfo]:
        """Return what is known of each model, the most recently used first."""
        return self._drive(self._calls.models())

    def describe(self, model: str, *, timeout_s: float | None = None) -> ModelInfo:
        """Return what is known of one model, opened if need be, its weights left where they are."""
        return self._drive(self._calls.describe(model, timeout_s))

    def load(self, model: str, *, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident now, a failed one tried again, and return its description."""
        return self._drive(self._calls.load(model, timeout_s))

    def unload(self, model: str) -> bool:
        """Drop a model's weights, its pin and its failures; return whether it is gone, False while it is in use."""
        return self._drive(self._calls.unload(model))

    def pin(self, model: str, pinned: bool = True, *, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident and keep it there, or let it be swapped again; return its description."""
        return self._drive(self._calls.pin(model, pinned, timeout_s))

    def close(self) -> None:
        """Close the connections; calls under way in other threads fail."""
        self._closed = True
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _run(self, plan: Plan[R]) -> R:
        if self._closed:
            raise closed_error()
        plan.report()
        try:
            if len(plan.cuts) == 1:
                plan.put(plan.cuts[0], self._drive(plan.steps(plan.cuts[0])))
            else:
                self._gather(plan)
        except TercetError as error:
            raise plan.failure(error) from error.__cause__
        return plan.parts.whole()

    def _gather(self, plan: Plan[R]) -> None:
        """Run the requests of a plan side by side; once one fails, those that have not begun never do."""
        gone = threading.Event()
        jobs = [partial(self._drive, plan.steps(place), gone) for place in plan.cuts]
        try:
            for place, part in side_by_side(jobs, self._calls.max_concurrency):
                plan.put(plan.cuts[place], part)
        finally:
            gone.set()

    def _drive(self, steps: Steps[T], gone: threading.Event | None = None) -> T:
        """Do what the steps say and return what they come to; `gone` ends their pauses."""
        gone = gone or threading.Event()
        try:
            step = next(steps)
            while True:
                step = steps.send(self._do(step, gone))
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Send | Pause, gone: threading.Event) -> Reply | TransportError | None:
        if self._closed:
            raise closed_error()
        if isinstance(step, Pause):
            if gone.wait(step.seconds):
                raise CancelledError
            return None
        try:
            response = self._http.request(**step.keywords(self._calls.url))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return transport_error(self._calls.url, error)
        return Reply(response.status_code, response.headers, response.content)
