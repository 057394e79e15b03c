"""`Readiness`: whether the server should get traffic, known from a real forward pass of every preloaded model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Literal

from tercet.engine.engine import Engine
from tercet.errors import TercetError

log = logging.getLogger(__name__)

State = Literal["starting", "ready", "draining", "dead"]
_TEXT = "ready"
_RETRY_AFTER_S = 5.0


class Readiness:
    """Warms models up and remembers how far that has come. Lives on one event loop.

    Attributes:
        waiting: models that have not answered yet, with "loading" or the code of the last error.
        closing: whether callers are to open no more connections.
    """

    def __init__(self, engine: Engine) -> None:
        self.waiting: dict[str, str] = {}
        self.closing = False
        self._engine = engine
        self._started = self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> State:
        """What a load balancer is told; everything but "ready" means no traffic."""
        if self._draining:
            return "draining"
        if not self._engine.alive:
            return "dead"
        return "ready" if self._started else "starting"

    def begin(self, models: Iterable[str]) -> None:
        """Warm the models up in the background; the server is ready once all have answered, and then stays so."""
        self.waiting.update(dict.fromkeys(models, "loading"))
        self._started = self._started or not self.waiting
        for model in list(self.waiting):
            task = asyncio.get_running_loop().create_task(self._warm_up(model), name=f"warm up {model}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def drain(self) -> None:
        """Say from now on that the server stops."""
        self._draining = True

    def close(self) -> None:
        """Say from now on that every answer is the last on its connection."""
        self.closing = True

    async def end(self) -> None:
        """Stop warming up."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _warm_up(self, model: str) -> None:
        """Load a model and let it answer once; what may pass is tried again, what cannot is logged."""
        while True:
            try:
                await self._ask(model)
            except TercetError as error:
                log.error("%s is not ready: %s", model, error.message)
                self.waiting[model] = error.code
                if not error.retryable:
                    return
                await asyncio.sleep(error.retry_after_s or _RETRY_AFTER_S)
            else:
                self.waiting.pop(model, None)
                self._started = self._started or not self.waiting
                return

    async def _ask(self, model: str) -> None:
        info = await asyncio.to_thread(self._engine.load, model)
        if info.outputs:
            await self._engine.aencode(model, [_TEXT], output_types=info.outputs[:1])
        elif info.scoring:
            await self._engine.ascore(model, _TEXT, [_TEXT])
