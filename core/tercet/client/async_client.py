"""`AsyncClient`: encode and score on a server, from coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self, TypeVar, Unpack, overload

import httpx

from tercet.client.calls import LIMITS, Calls, ClientChoices, closed_error
from tercet.client.exchange import Pause, Reply, Send, Steps, transport_error
from tercet.client.plan import Plan, R
from tercet.errors import TercetError, TransportError
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


class AsyncClient:
    """`Client` for coroutines: the same methods, awaited. Cancelling a task drops its work on the server too.

    Args:
        url: of the server.
        http_client: sends the requests in place of one of its own; it is not closed.
        choices: as of `Client`; `max_concurrency` counts for each call.

    Raises:
        InvalidInputError: a value is not one of those.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        http_client: httpx.AsyncClient | None = None,
        **choices: Unpack[ClientChoices],
    ) -> None:
        self._calls = Calls(url, **choices)
        self._http = http_client or httpx.AsyncClient(limits=LIMITS)
        self._owned = http_client is None
        self._closed = False

    @overload
    async def encode(  # type: ignore[overload-overlap]
        self, model: str, items: ItemLike, **keywords: Unpack[EncodeKeywords]
    ) -> Embedding: ...
    @overload
    async def encode(self, model: str, items: Sequence[ItemLike], **keywords: Unpack[EncodeKeywords]) -> Embeddings: ...
    async def encode(
        self, model: str, items: ItemLike | Sequence[ItemLike], **keywords: Unpack[EncodeKeywords]
    ) -> Embedding | Embeddings:
        """Return the outputs of one item, or of a list of items as columns in the same order; see `Engine.encode`.

        Raises:
            TercetError: as the engine; TransportError where the server cannot be reached.
        """
        plan, single = self._calls.encode(model, items, keywords)
        whole = await self._run(plan)
        return whole[0] if single else whole

    async def score(
        self, model: str, query: ItemLike, items: Sequence[ItemLike], **keywords: Unpack[ScoreKeywords]
    ) -> Scores:
        """Return the items scored against the query, best first, ties in the order given; see `Engine.score`.

        Raises:
            TercetError: as the engine; TransportError where the server cannot be reached.
        """
        return await self._run(self._calls.score(model, query, items, keywords))

    async def models(self) -> list[ModelInfo]:
        """Return what is known of each model, the most recently used first."""
        return await self._drive(self._calls.models())

    async def describe(self, model: str, *, timeout_s: float | None = None) -> ModelInfo:
        """Return what is known of one model, opened if need be, its weights left where they are."""
        return await self._drive(self._calls.describe(model, timeout_s))

    async def load(self, model: str, *, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident now, a failed one tried again, and return its description."""
        return await self._drive(self._calls.load(model, timeout_s))

    async def unload(self, model: str) -> bool:
        """Drop a model's weights, its pin and its failures; return whether it is gone, False while it is in use."""
        return await self._drive(self._calls.unload(model))

    async def pin(self, model: str, pinned: bool = True, *, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident and keep it there, or let it be swapped again; return its description."""
        return await self._drive(self._calls.pin(model, pinned, timeout_s))

    async def close(self) -> None:
        """Close the connections; calls under way in other tasks fail."""
        self._closed = True
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def _run(self, plan: Plan[R]) -> R:
        plan.report()
        slots = asyncio.Semaphore(self._calls.max_concurrency)
        tasks = [asyncio.create_task(self._part(plan, place, slots)) for place in plan.cuts]
        try:
            await asyncio.gather(*tasks)
        except TercetError as error:
            raise plan.failure(error) from error.__cause__
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return plan.parts.whole()

    async def _part(self, plan: Plan[R], place: slice, slots: asyncio.Semaphore) -> None:
        async with slots:
            plan.put(place, await self._drive(plan.steps(place)))

    async def _drive(self, steps: Steps[T]) -> T:
        """Do what the steps say and return what they come to."""
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._do(step))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _do(self, step: Send | Pause) -> Reply | TransportError | None:
        if self._closed:
            raise closed_error()
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            response = await self._http.request(**step.keywords(self._calls.url))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return transport_error(self._calls.url, error)
        return Reply(response.status_code, response.headers, response.content)
