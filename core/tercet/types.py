"""What goes in and what comes out: plain values over numpy, shared by the engine, the client and the adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, Unpack, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tercet.timings import Timings
from tercet.vectors import MultiVectorBatch, Quantization, SparseBatch, SparseVector, row_position

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "OUTPUTS",
    "OUTPUT_DTYPES",
    "TRUNCATIONS",
    "Embedding",
    "Embeddings",
    "EncodeChoices",
    "EncodeKeywords",
    "Inference",
    "Item",
    "ItemLike",
    "ModelInfo",
    "ModelState",
    "MultiVectorBatch",
    "Output",
    "OutputDType",
    "Progress",
    "Quantization",
    "Score",
    "ScoreChoices",
    "ScoreKeywords",
    "Scores",
    "SparseBatch",
    "SparseVector",
    "Timings",
    "Truncate",
    "WaitKeywords",
]

Output = Literal["dense", "sparse", "multivector"]
OutputDType = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
Truncate = Literal["end", "start", "none"]
Progress = Callable[[int, int], None]

OUTPUTS: tuple[Output, ...] = ("dense", "sparse", "multivector")
OUTPUT_DTYPES: tuple[OutputDType, ...] = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
TRUNCATIONS: tuple[Truncate, ...] = ("end", "start", "none")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to encode or score: a text, or token ids that are used as they are.

    Attributes:
        text: the text; required unless `input_ids` is given.
        id: an identifier of the caller's, returned with the result.
        input_ids: vocabulary indices, special tokens included, that bypass tokeniser and prompts.
    """

    text: str | None = None
    id: str | None = None
    input_ids: Sequence[int] | None = None


ItemLike = Item | str


@dataclass(frozen=True, slots=True, eq=False)
class Embedding(Mapping[str, Any]):
    """One item's outputs, as a mapping: `e["dense"]` (d,), `e["sparse"]`, `e["multivector"]` (tokens, d).

    Attributes:
        tokens: how many tokens went through the model, special tokens and prompt included.
        truncated: whether the text was longer than the model reads.
        quantization: of the dense vector, for int8 and uint8.
        timings: of the call that made it, if known.
    """

    outputs: Mapping[str, Any]
    id: str | None
    tokens: int
    truncated: bool
    quantization: Quantization | None = None
    timings: Timings | None = None

    def __getitem__(self, output: str) -> Any:
        return self.outputs[output]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings(Sequence[Embedding]):
    """The outputs of n items as columns; an output that was not asked for is None.

    Attributes:
        model: the model's id; `revision`, if known, says which version.
        dense: (n, d) in the requested output type.
        tokens: (n,) int32. truncated: (n,) bool. ids: the items' ids.
        quantization: of the dense column, for int8 and uint8.
        timings: of the call, if known.
    """

    model: str
    revision: str | None
    ids: Sequence[str | None]
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    dense: NDArray[Any] | None = None
    sparse: SparseBatch | None = None
    multivector: MultiVectorBatch | None = None
    quantization: Quantization | None = None
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @overload
    def __getitem__(self, i: int) -> Embedding: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Embedding]: ...
    def __getitem__(self, i: int | slice) -> Embedding | Sequence[Embedding]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = row_position(i, len(self))
        columns = {"dense": self.dense, "sparse": self.sparse, "multivector": self.multivector}
        return Embedding(
            outputs={name: column[i] for name, column in columns.items() if column is not None},
            id=self.ids[i],
            tokens=int(self.tokens[i]),
            truncated=bool(self.truncated[i]),
            quantization=self.quantization[i] if self.quantization else None,
            timings=self.timings,
        )

    def to_arrow(self) -> pa.RecordBatch:
        """Return the columns as one Arrow record batch that shares their memory.

        Columns: id, tokens, truncated, then dense FixedSizeList<d>, sparse Struct<indices, values>, multivector
        List<FixedSizeList<d>>, and for int8 and uint8 their scale and offset.
        """
        from tercet.arrow import embeddings_to_arrow

        return embeddings_to_arrow(self)


@dataclass(frozen=True, slots=True)
class Score:
    """One scored item: its `index` in the request, its `id`, the `score`, and its `rank` from 0."""

    index: int
    id: str | None
    score: float
    rank: int


@dataclass(frozen=True, slots=True, eq=False)
class Scores(Sequence[Score]):
    """Scored items, best first (ties in request order), at most `top_k` of them.

    Attributes:
        scores: (n,) float32 in REQUEST order, all n of them whatever `top_k` was.
        order: (k,) int64, the request indices from best to worst.
        tokens: (n,) int32 tokens that the model read for each item; truncated: (n,) bool.
        timings: of the call, if known.
    """

    model: str
    revision: str | None
    ids: Sequence[str | None]
    scores: NDArray[np.float32]
    order: NDArray[np.int64]
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, i: int) -> Score: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Score]: ...
    def __getitem__(self, i: int | slice) -> Score | Sequence[Score]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        rank = row_position(i, len(self))
        index = int(self.order[rank])
        return Score(index=index, id=self.ids[index], score=float(self.scores[index]), rank=rank)


ModelState = Literal["available", "loading", "resident", "parked", "failed"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is and what the engine has done with it so far.

    Attributes:
        architecture: as its `config.json` names it; `backbone` says how it runs (a family of ours, or padded).
        outputs: what `encode` can return; `scoring` the ways `score` can work, the default first.
        dims: dimensions per output. max_length: tokens read of one text.
        size_bytes: bytes of its weights at the engine's precision; resident_bytes: now on the device.
        load_ms: of the last load. hits: batches and direct answers served. last_used_s: seconds since then.
        error: why the last load failed.
        fingerprint: of all that decides its vectors; equal for the same model under another name. Empty if unknown.
    """

    id: str
    revision: str | None
    architecture: str
    backbone: str
    state: ModelState
    outputs: tuple[Output, ...]
    scoring: tuple[str, ...]
    dims: Mapping[str, int]
    max_length: int
    precision: str
    kernels: Mapping[str, str]
    size_bytes: int
    resident_bytes: int
    pinned: bool
    load_ms: float | None = None
    last_used_s: float | None = None
    hits: int = 0
    loads: int = 0
    evictions: int = 0
    error: str | None = None
    notes: tuple[str, ...] = field(default=())
    fingerprint: str = ""


class WaitKeywords(TypedDict, total=False):
    """How a caller waits."""

    timeout_s: float | None
    progress: Progress | None


class ScoreChoices(TypedDict, total=False):
    """How to score, as `Engine.score` documents it."""

    top_k: int | None
    options: Mapping[str, Any] | None


class EncodeChoices(TypedDict, total=False):
    """How to encode, as `Engine.encode` documents it."""

    output_types: Sequence[str]
    is_query: bool
    dimensions: int | None
    output_dtype: OutputDType
    prompt: str | None
    truncate: Truncate
    options: Mapping[str, Any] | None


class ScoreKeywords(ScoreChoices, WaitKeywords, total=False):
    """All keywords of `score`."""


class EncodeKeywords(EncodeChoices, WaitKeywords, total=False):
    """All keywords of `encode`."""


@runtime_checkable
class Inference(Protocol):
    """What adapters take: the engine in process, a client of a server, or a fake for tests."""

    @overload
    def encode(self, model: str, items: ItemLike, **keywords: Unpack[EncodeKeywords]) -> Embedding: ...  # type: ignore[overload-overlap]
    @overload
    def encode(self, model: str, items: Sequence[ItemLike], **keywords: Unpack[EncodeKeywords]) -> Embeddings: ...
    def score(
        self, model: str, query: ItemLike, items: Sequence[ItemLike], **keywords: Unpack[ScoreKeywords]
    ) -> Scores:
        """Return the items scored against the query, best first."""
        ...

    def models(self) -> Sequence[ModelInfo]:
        """Return what is known of each model, the most recently used first."""
        ...

    def describe(self, model: str) -> ModelInfo:
        """Return what is known of one model, its weights left where they are."""
        ...
