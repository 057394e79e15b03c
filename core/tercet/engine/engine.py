"""`Engine`: encode and score with many models on one device, in this process."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from tercet.checkpoints.checkpoint import Checkpoint
from tercet.checkpoints.open import open_checkpoint
from tercet.deadline import Deadline
from tercet.engine.catalogue import Catalogue, Opened
from tercet.engine.device import open_device
from tercet.engine.dispatcher import Dispatcher
from tercet.engine.events import Observers
from tercet.engine.launch import Launch
from tercet.engine.lease import Lease
from tercet.engine.parking import ParkingLot
from tercet.engine.pending import Pending, is_brief, started
from tercet.engine.requests import encode_request, score_request
from tercet.engine.residency import Residency
from tercet.engine.shutdown import Shutdown
from tercet.engine.state import EngineState
from tercet.inputs import encode_params, model_name, positive, score_params, seconds
from tercet.nn.parked import Parked
from tercet.types import (
    Embedding,
    Embeddings,
    EncodeChoices,
    EncodeKeywords,
    ItemLike,
    ModelInfo,
    OutputDType,
    Progress,
    ScoreChoices,
    Scores,
    Truncate,
)

T = TypeVar("T")

_MAX_QUEUE_TOKENS = 4_000_000  # minutes of work on a CPU, seconds on a GPU; 32 MB of token ids


class Engine:
    """Serves dense, sparse and multivector embeddings and rerank scores from one device. Thread-safe.

    Models load on first use and are swapped by true LRU under `memory_budget`; texts of all callers run in common
    batches without padding. `encode` and `score` block the calling thread, `aencode` and `ascore` await. Results are
    the caller's own memory.

    >>> from tercet import Engine
    >>> with Engine() as engine:
    ...     engine.encode("sentence-transformers/all-MiniLM-L6-v2", ["one text", "another"]).dense.shape
    (2, 384)

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; auto takes a GPU if there is one.
        precision: "auto", "float32", "bfloat16", "float16", or on a CPU "int8" or "int16"; auto is float32 on CPU and
            bfloat16 on CUDA.
        memory_budget: bytes, or "8GiB", that all resident weights may take; default half of the memory on a CPU and
            85 % of what is free on a GPU. Activations come on top. What made room on a GPU waits in host memory, at
            most in half of it.
        allow_download: whether models that are not here may be fetched from the hub, or what says so of each id.
        cache_dir: the hub cache; default the usual one.
        max_queue_tokens: new calls are refused with OverloadedError while more would wait; default 4 million.
        idle_ttl_s: drop models unused for so long; default never.

    Raises:
        InvalidInputError: a value is not one of those above.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        memory_budget: int | str | None = None,
        *,
        allow_download: bool | Callable[[str], bool] = False,
        cache_dir: str | Path | None = None,
        max_queue_tokens: int | None = None,
        idle_ttl_s: float | None = None,
    ) -> None:
        self.device = open_device(device, precision, memory_budget)
        self._pool = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 2)), thread_name_prefix="tercet-host")
        self.observers = Observers()
        ttl_s = seconds("idle_ttl_s", idle_ttl_s)
        lot = ParkingLot(self.device.parking_bytes, Parked) if self.device.parking_bytes else None
        self._residency = Residency(self.device.budget_bytes, idle_ttl_s=ttl_s, observers=self.observers, lot=lot)
        self._dispatcher = Dispatcher(
            self.device,
            self._residency,
            self._pool,
            max_queue_tokens=positive("max_queue_tokens", max_queue_tokens) or _MAX_QUEUE_TOKENS,
            observers=self.observers,
        )
        self._launch = Launch(self._dispatcher, self.device.max_batch_tokens, self._pool)
        directory = Path(cache_dir) if cache_dir else None
        opener = partial(open_checkpoint, allow_download=allow_download, cache_dir=directory)
        self._catalogue = Catalogue(opener, self.device, self._residency, self._dispatcher.guests)
        self._shutdown = Shutdown(self._dispatcher, self._residency, self._pool)
        # Threads hold none of these through the engine, so an engine that is dropped without close() still stops.
        self._stop = weakref.finalize(self, self._shutdown)

    @overload
    def encode(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too; the first one wins
        self, model: str, items: ItemLike, **keywords: Unpack[EncodeKeywords]
    ) -> Embedding: ...
    @overload
    def encode(self, model: str, items: Sequence[ItemLike], **keywords: Unpack[EncodeKeywords]) -> Embeddings: ...
    def encode(
        self,
        model: str,
        items: ItemLike | Sequence[ItemLike],
        *,
        output_types: Sequence[str] = ("dense",),
        is_query: bool = False,
        dimensions: int | None = None,
        output_dtype: OutputDType = "float32",
        prompt: str | None = None,
        truncate: Truncate = "end",
        options: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Embedding | Embeddings:
        """Return the outputs of one item, or of a list of items as columns in the same order.

        Args:
            model: hub id, `id@revision`, local directory, or "bm25".
            items: a text, an `Item`, or a sequence of them.
            output_types: any of "dense", "sparse", "multivector"; all come from one forward pass.
            is_query: whether the items are queries, which decides prompts, markers and lengths.
            dimensions: keep the first so many dimensions, renormalised (Matryoshka).
            output_dtype: float32, float16, int8, uint8, binary or ubinary, for dense and multivector.
            prompt: name of one of the checkpoint's prompts, or the text itself; default the side's own; "" for none.
            truncate: which end of an over-long text is cut: "end", "start", or "none" to make it an error.
            options: `pool_factor` (multivector: merge tokens to about 1/k), `top_k` (sparse: keep the largest k).
            timeout_s: give up after so long; loading and downloading count.
            progress: called on this thread with (items done, items in all).

        Raises:
            TercetError: see `tercet.errors`; nothing is partly returned.
        """
        params = encode_params(output_types, is_query, dimensions, output_dtype, prompt, truncate, options)
        start = partial(self._launch.encode, encode_request(params), items)
        return self._run(model, start, is_brief(items), timeout_s, progress)

    async def aencode(
        self,
        model: str,
        items: ItemLike | Sequence[ItemLike],
        *,
        timeout_s: float | None = None,
        progress: Progress | None = None,
        **choices: Unpack[EncodeChoices],
    ) -> Embedding | Embeddings:
        """Await `encode`; the event loop is never blocked, and cancelling the task drops its queued work."""
        start = partial(self._launch.encode, encode_request(encode_params(**choices)), items)
        return await self._arun(model, start, is_brief(items), timeout_s, progress)

    def score(
        self,
        model: str,
        query: ItemLike,
        items: Sequence[ItemLike],
        *,
        top_k: int | None = None,
        options: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Return the items scored against the query, best first, ties in the order given.

        Args:
            model: a cross-encoder, or any embedding model: late-interaction models score by MaxSim, others by dot
                product.
            query: a text or `Item`.
            items: the candidates.
            top_k: keep only the best rows; `.scores` still has all.
            options: `scoring` (cross-encoder, maxsim, dense, sparse), `instruction` (for rerankers with a template),
                `truncate` (end, start, none), `activation` (identity, sigmoid: a cross-encoder's, in place of its own).
            timeout_s: give up after so long.
            progress: called on this thread with (items done, items in all).

        Raises:
            TercetError: see `tercet.errors`.
        """
        request = score_request(score_params(top_k, options))
        brief = is_brief(query) and is_brief(items)
        return self._run(model, partial(self._launch.score, request, query, items), brief, timeout_s, progress)

    async def ascore(
        self,
        model: str,
        query: ItemLike,
        items: Sequence[ItemLike],
        *,
        timeout_s: float | None = None,
        progress: Progress | None = None,
        **choices: Unpack[ScoreChoices],
    ) -> Scores:
        """Await `score`; the event loop is never blocked, and cancelling the task drops its queued work."""
        start = partial(self._launch.score, score_request(score_params(**choices)), query, items)
        return await self._arun(model, start, is_brief(query) and is_brief(items), timeout_s, progress)

    def models(self) -> list[ModelInfo]:
        """Return what is known of every model opened so far, the most recently used first."""
        return [self._catalogue.info(opened) for opened in self._catalogue.opened()]

    def describe(self, model: str, *, timeout_s: float | None = None) -> ModelInfo:
        """Return what is known of one model, opened if need be, its weights left where they are."""
        return self._catalogue.info(self._opened(model, Deadline.after(timeout_s)))

    def state(self) -> EngineState:
        """Return what waits, what runs and what memory is used, just now."""
        return self._dispatcher.state()

    def checkpoint(self, model: str, *, timeout_s: float | None = None) -> Checkpoint:
        """Return a model's host side, its weights left where they are: its description and its tokeniser."""
        return self._opened(model, Deadline.after(timeout_s)).checkpoint

    def load(self, model: str, *, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident now, a failed one tried again, and return its description."""
        return self._with_lease(model, timeout_s, lambda _: None)

    def unload(self, model: str) -> bool:
        """Drop a model's weights, its pin and its failures; return whether it is gone, False while it is in use."""
        opened = next((o for o in self._catalogue.opened() if o.resident.name == model), None)
        return True if opened is None else self._residency.unload(opened.resident)

    def pin(self, model: str, pinned: bool = True, *, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident and keep it there, or let it be swapped again; return its description."""
        if pinned:
            return self._with_lease(model, timeout_s, lambda lease: self._residency.pin(lease.resident, True))
        opened = self._opened(model, Deadline.after(timeout_s))
        self._residency.pin(opened.resident, False)
        return self._catalogue.info(opened)

    @property
    def alive(self) -> bool:
        """Whether the threads that run batches are up."""
        return self._stop.alive and self._dispatcher.alive

    def close(self, drain_s: float = 10.0) -> None:
        """Refuse new calls, let running ones finish for up to `drain_s` seconds, then free everything."""
        self._shutdown(drain_s)
        self._stop.detach()  # only now: one that is interrupted is taken up when the process ends

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(
        self,
        model: str,
        start: Callable[..., Pending[T]],
        brief: bool,
        timeout_s: float | None,
        progress: Progress | None,
    ) -> T:
        deadline = Deadline.after(timeout_s)
        pending = start(self._opened(model, deadline), here=brief)
        return pending.result(deadline, progress, self._dispatcher.run_here if brief else None)

    async def _arun(
        self,
        model: str,
        start: Callable[[Opened], Pending[T]],
        brief: bool,
        timeout_s: float | None,
        progress: Progress | None,
    ) -> T:
        deadline = Deadline.after(timeout_s)
        opened = await self._catalogue.aget(self._admitted(model), deadline)
        pending = start(opened) if brief else await started(self._pool, partial(start, opened))
        return await pending.aresult(deadline, progress)

    def _with_lease(self, model: str, timeout_s: float | None, act: Callable[[Lease], None]) -> ModelInfo:
        deadline = Deadline.after(timeout_s)
        return self._catalogue.make_resident(self._opened(model, deadline), deadline, act)

    def _opened(self, model: str, deadline: Deadline) -> Opened:
        return self._catalogue.get(self._admitted(model), deadline)

    def _admitted(self, model: str) -> str:
        """Return the model's name, checked; nothing is opened for a call that will be refused."""
        name = model_name(model)
        self._dispatcher.check_room(0)
        return name
