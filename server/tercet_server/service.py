"""`Service`: the engine as the server offers it: which names mean which models, who may use them, how long to wait."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

from tercet.checkpoints.checkpoint import Checkpoint
from tercet.engine.engine import Engine
from tercet.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelLoadingError,
    ModelNotFoundError,
    TercetError,
)
from tercet.types import Embeddings, EncodeChoices, ItemLike, ModelInfo, ScoreChoices, Scores
from tercet_server.auth import Keys
from tercet_server.endpoint import Call
from tercet_server.metrics import Metrics
from tercet_server.readiness import Readiness
from tercet_server.settings import FIELDS, Settings

R = TypeVar("R", Embeddings, Scores)

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")
_LONGEST_ID = 200  # characters; the hub has fewer, and no file system asks about names beyond 255
_LOADS_IN_S = 2.0  # what a caller is told to wait for a model whose last load was not timed


class Service:
    """What handlers call. One for each app, on one event loop; many may share an engine.

    Attributes:
        settings: as read last. keys: theirs.
        readiness: whether the server should get traffic. metrics: what it has done.

    Args:
        engine: runs the models.
        settings: as they are now.
        reread: returns them as their sources are later, for `reload`.

    Raises:
        InvalidInputError: the file of API keys is wrong.
    """

    def __init__(self, engine: Engine, settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
        self.engine = engine
        self.settings = settings
        self.keys = Keys.of(settings)
        self.readiness = Readiness(engine)
        self.metrics = Metrics(engine)
        self._reread = reread or (lambda: settings)
        self._background: dict[str, asyncio.Task[ModelInfo]] = {}

    def reload(self) -> list[str]:
        """Read the settings again and take over those that may change under way; return the others that changed.

        Raises:
            InvalidInputError: a setting is wrong; nothing has changed.
        """
        old, new = self.settings, self._reread()
        settings = dataclasses.replace(
            old, **{name: getattr(new, name) for name, item in FIELDS.items() if item.metadata.get("live")}
        )
        self.keys, self.settings = Keys.of(settings), settings
        self.readiness.begin(model for model in settings.models if model not in old.models)
        return [name for name in FIELDS if getattr(new, name) != getattr(settings, name)]

    # ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def resolve(self, name: str | None, *kinds: str) -> str:
        """Return the model that a name means; without a name, the default of the first kind that has one.

        Raises:
            InvalidInputError: no name and no default, or the name is a path.
            ModelNotFoundError: not on the allow-list.
        """
        settings = self.settings
        if not name:
            name = self._default(kinds)
        model = settings.aliases.get(name, name)
        if model not in settings.named:
            _refuse_path(model)
            if not settings.may_use(model):
                raise ModelNotFoundError(f"{model!r} is not served here; GET /v1/models lists what is")
        return model

    def _default(self, kinds: Sequence[str]) -> str:
        settings = self.settings
        known = {info.id: info for info in self.engine.models()}
        served = [known[model] for model in settings.models if model in known]
        for kind in kinds:
            if kind in settings.defaults:
                return settings.defaults[kind]
            if able := [info for info in served if _suits(info, kind)]:
                return min(able, key=lambda info: _suits(info, kind)).id
        raise InvalidInputError(
            f"no model is named and the server has no default for {kinds[0]}: name one in the body or as /m/MODEL/…, "
            f"or start the server with --default {kinds[0]}=MODEL"
        )

    # ── inference ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def encode(
        self, call: Call[Any], name: str | None, items: Sequence[ItemLike], **choices: Unpack[EncodeChoices]
    ) -> Embeddings:
        """Return the outputs of the items as columns, `model` as the caller named it.

        Args:
            call: for its deadline, its path's model, and to record timings and tokens.
            name: the model that the body names, if any; the path's goes first.
            items: texts or items.
            choices: as `Engine.encode`.
        """
        outputs = choices.get("output_types") or ("dense",)
        name = call.model or name
        model = self.resolve(name, outputs[0])
        use = call.use("encode", model, len(items))
        await self._warm(call, model)
        try:
            result = await self.engine.aencode(model, list(items), timeout_s=call.left_s(), **choices)
        except DeadlineExceededError as error:
            raise self._late(model, error) from None
        assert isinstance(result, Embeddings)
        use.answered(result.timings, int(result.tokens.sum()))
        return _named(result, name or model)

    async def score(
        self,
        call: Call[Any],
        name: str | None,
        query: ItemLike,
        items: Sequence[ItemLike],
        **choices: Unpack[ScoreChoices],
    ) -> Scores:
        """Return the items scored against the query, `model` as the caller named it; arguments as in `encode`."""
        name = call.model or name
        model = self.resolve(name, "score")
        use = call.use("score", model, len(items))
        await self._warm(call, model)
        try:
            result = await self.engine.ascore(model, query, list(items), timeout_s=call.left_s(), **choices)
        except DeadlineExceededError as error:
            raise self._late(model, error) from None
        use.answered(result.timings, int(result.tokens.sum()))
        return _named(result, name or model)

    # ── models ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def info(self, model: str) -> ModelInfo | None:
        """Return what the engine knows of a model, None before its first use."""
        return next((info for info in self.engine.models() if info.id == model), None)

    async def described(self, call: Call[Any], model: str) -> ModelInfo:
        """Return the description of a model that `resolve` gave, loaded first if nothing is known of it yet."""
        await self._warm(call, model)
        try:
            return self.info(model) or await self.load(model, call.left_s())
        except DeadlineExceededError as error:
            raise self._late(model, error) from None

    async def checkpoint(self, call: Call[Any], name: str | None, *kinds: str) -> Checkpoint:
        """Return the host side of the model that `resolve` gives: its description and tokeniser."""
        model = self.resolve(call.model or name, *kinds)
        return await asyncio.to_thread(self.engine.checkpoint, model, timeout_s=call.left_s())

    async def load(self, model: str, timeout_s: float | None = None) -> ModelInfo:
        """Make a model resident and return its description."""
        return await asyncio.to_thread(self.engine.load, model, timeout_s=timeout_s)

    def load_soon(self, model: str) -> None:
        """Begin to load a model in the background, once for all who ask; failures are told the next caller."""
        if model not in self._background:
            task = asyncio.get_running_loop().create_task(self.load(model))
            self._background[model] = task
            task.add_done_callback(partial(self._forget, model))

    async def _warm(self, call: Call[Any], model: str) -> None:
        """Begin to load a model that is not resident and raise, for a caller that does not wait."""
        if call.waits:
            return
        info = self.info(model)
        if info is None or info.state != "resident":
            self.load_soon(model)
            raise self._loading(model)

    def _late(self, model: str, error: DeadlineExceededError) -> TercetError:
        info = self.info(model)
        return error if info is not None and info.state == "resident" else self._loading(model)

    def _loading(self, model: str) -> ModelLoadingError:
        info = self.info(model)
        seconds = _LOADS_IN_S if info is None or info.load_ms is None else info.load_ms / 1e3
        return ModelLoadingError(f"{model} is being loaded; come back in {seconds:.0f} s", retry_after_s=seconds)

    def _forget(self, model: str, task: asyncio.Task[ModelInfo]) -> None:
        del self._background[model]
        if not task.cancelled():
            task.exception()


def _named(result: R, name: str) -> R:
    """Return the result under the name that its caller has for the model."""
    return result if result.model == name else dataclasses.replace(result, model=name)


def _suits(info: ModelInfo, kind: str) -> int:
    """Return how near a model comes to a kind, 1 the nearest, 0 for not at all; any embedding can score, if it must."""
    if kind != "score":
        return int(kind in info.outputs)
    return 1 + (info.scoring[0] != "cross-encoder") if info.scoring else 0


def _refuse_path(model: str) -> None:
    """Raise if a name that no operator gave could be read as a directory of this machine."""
    if len(model) > _LONGEST_ID or not _HUB_ID.fullmatch(model) or ".." in model or Path(model).exists():
        raise InvalidInputError(
            f"{model!r} is not a model id; requests name models as on the hub ('organisation/name', optionally "
            "'@revision') or by an alias, never by a path"
        )
