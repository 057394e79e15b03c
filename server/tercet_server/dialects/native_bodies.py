"""The bodies of Tercet's own interface: what may be asked and what is answered; `/openapi.json` shows them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tercet.types import EncodeChoices, Item, ItemLike, Output, OutputDType, ScoreChoices, Truncate


class ItemBody(msgspec.Struct, forbid_unknown_fields=True):
    """A text, or token ids that are used as they are. `metadata` is the caller's own and not looked at."""

    text: str | None = None
    id: str | None = None
    input_ids: list[int] | None = None
    metadata: Any = None

    def item(self) -> Item:
        """Return it as the engine takes it."""
        return Item(self.text, self.id, self.input_ids)


class Params(msgspec.Struct, forbid_unknown_fields=True):
    """How to encode. `instruction` is another name for `prompt`; `options` may hold `is_query` too."""

    output_types: list[Output] = msgspec.field(default_factory=lambda: ["dense"])
    is_query: bool = False
    dimensions: int | None = None
    output_dtype: OutputDType = "float32"
    prompt: str | None = None
    instruction: str | None = None
    truncate: Truncate = "end"
    options: dict[str, Any] | None = None

    def choices(self) -> EncodeChoices:
        """Return them as the engine takes them."""
        options = _options(self.options)
        return EncodeChoices(
            output_types=self.output_types,
            is_query=options.pop("is_query", self.is_query),
            dimensions=self.dimensions,
            output_dtype=self.output_dtype,
            prompt=self.instruction if self.prompt is None else self.prompt,
            truncate=self.truncate,
            options=options,
        )


class EncodeBody(msgspec.Struct):
    """Items to encode."""

    items: list[str | ItemBody]
    params: Params = msgspec.field(default_factory=Params)


class ScoreBody(msgspec.Struct):
    """A query and the items to score against it."""

    query: str | ItemBody
    items: list[str | ItemBody]
    top_k: int | None = None
    options: dict[str, Any] | None = None
    instruction: str | None = None

    def choices(self) -> ScoreChoices:
        """Return how to score, as the engine takes it."""
        options = _options(self.options)
        if self.instruction is not None:
            options["instruction"] = self.instruction
        return ScoreChoices(top_k=self.top_k, options=options)


def items_of(items: list[Any]) -> list[ItemLike]:
    """Return the items of a body, which Arrow has made items already, as the engine takes them."""
    return [item.item() if isinstance(item, ItemBody) else item for item in items]


def _options(given: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options under the engine's names; the default profile is no choice at all."""
    options = dict(given or {})
    if options.get("profile") == "default":
        del options["profile"]
    return {"lora" if name == "lora_id" else name: value for name, value in options.items()}


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Usage(msgspec.Struct):
    """Tokens that the model read."""

    tokens: int


class Timing(msgspec.Struct):
    """Where the time went."""

    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    total_ms: float


class Dense(msgspec.Struct):
    """One vector; `scale` and `offset` say how int8 and uint8 map back."""

    dims: int
    dtype: OutputDType
    values: list[float]
    scale: float | msgspec.UnsetType = msgspec.UNSET
    offset: float | msgspec.UnsetType = msgspec.UNSET


class Sparse(msgspec.Struct):
    """Lexical weights, their indices ascending."""

    dims: int
    dtype: Literal["float32"]
    indices: list[int]
    values: list[float]


class MultiVector(msgspec.Struct):
    """One vector for each token."""

    num_tokens: int
    token_dims: int
    dtype: OutputDType
    values: list[list[float]]
    scale: list[float] | msgspec.UnsetType = msgspec.UNSET
    offset: list[float] | msgspec.UnsetType = msgspec.UNSET


class Encoded(msgspec.Struct):
    """The outputs of one item, those that were asked for."""

    id: str | None
    tokens: int
    truncated: bool
    dense: Dense | msgspec.UnsetType = msgspec.UNSET
    sparse: Sparse | msgspec.UnsetType = msgspec.UNSET
    multivector: MultiVector | msgspec.UnsetType = msgspec.UNSET


class EncodeAnswer(msgspec.Struct):
    """The outputs of all items, in order."""

    model: str
    revision: str | None
    items: list[Encoded]
    usage: Usage
    timing: Timing | None


class Scored(msgspec.Struct):
    """One item's score and its place; `index` is the one in the request."""

    index: int
    item_id: str | None
    score: float
    rank: int
    tokens: int
    truncated: bool


class ScoreAnswer(msgspec.Struct):
    """The items from best to worst, as many as were asked for."""

    model: str
    revision: str | None
    query_id: str | None
    scores: list[Scored]
    usage: Usage
    timing: Timing | None


class LoadFailure(msgspec.Struct):
    """Why the last load failed."""

    code: str
    message: str
    permanent: bool


class Model(msgspec.Struct):
    """What a model is and what has become of it; `aliases` are other names that requests may use."""

    id: str
    revision: str | None
    architecture: str
    backbone: str
    state: Literal["available", "loading", "loaded", "parked", "failed"]
    outputs: list[str]
    scoring: list[str]
    dims: dict[str, int]
    max_length: int
    precision: str
    kernels: dict[str, str]
    size_bytes: int
    resident_bytes: int
    pinned: bool
    load_ms: float | None
    last_used_s: float | None
    hits: int
    loads: int
    evictions: int
    error: str | None
    notes: list[str]
    fingerprint: str
    name: str
    loaded: bool
    inputs: list[str]
    max_sequence_length: int | None
    last_error: LoadFailure | None
    object: Literal["model"]
    owned_by: str
    created: int
    aliases: list[str]


class Models(msgspec.Struct):
    """The models, under the name that this interface gives them and under OpenAI's."""

    models: list[Model]
    data: list[Model]
    object: Literal["list"]
