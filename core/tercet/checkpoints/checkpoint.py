"""`Checkpoint`: what the engine knows of a model before, and besides, its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tercet.checkpoints.spec import ModelSpec
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.nn.batch import TokenSequence
from tercet.nn.model import Model
from tercet.types import Item, Output, Truncate


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """How texts become token sequences for `encode`.

    Attributes:
        outputs: what will be read off the states; they decide markers and length limits (ColBERT).
        is_query: which side's prompt, markers and lengths apply.
        prompt: the name of a prompt of the checkpoint, or the text itself; None takes the side's default.
        truncate: which end of an over-long text is cut; "none" makes it an error.
    """

    outputs: tuple[Output, ...] = ("dense",)
    is_query: bool = False
    prompt: str | None = None
    truncate: Truncate = "end"


@dataclass(frozen=True, slots=True)
class PairSettings:
    """How a query and documents become token sequences for a cross-encoder.

    Attributes:
        instruction: the task, for models whose template has a place for it; None takes the checkpoint's own.
        truncate: as in `EncodeSettings`.
    """

    instruction: str | None = None
    truncate: Truncate = "end"


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that needed no forward pass (BM25, inference-free queries).

    Attributes:
        rows: per output its value, in the form that `Head.rows` gives.
        tokens: tokens read.
    """

    rows: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    truncated: bool = False


Prepared = TokenSequence | Ready


class Checkpoint(Protocol):
    """A model's host side: its description, its tokeniser, and how to load its weights. Thread-safe.

    `encode` and `pairs` release the interpreter lock while they tokenise. `first` is the index of the first item in the
    caller's list, so that errors can name the item.
    """

    @property
    def spec(self) -> ModelSpec:
        """What the files say."""
        ...

    @property
    def fingerprint(self) -> str:
        """What is equal for equal vectors; see `checkpoints.fingerprint`."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What splits its texts, None for a model without a vocabulary."""
        ...

    def encode(self, items: Sequence[Item], settings: EncodeSettings, first: int = 0) -> list[Prepared]:
        """Return one prepared sequence (or ready answer) per item.

        Raises:
            InvalidInputError: an item is empty of tokens, holds a lone surrogate, has ids outside the vocabulary, or is
                too long under `truncate="none"`; the message names its index.
        """
        ...

    def pairs(self, query: Item, documents: Sequence[Item], settings: PairSettings, first: int = 0) -> list[Prepared]:
        """Return one prepared sequence per (query, document) pair for the "score" head.

        Raises:
            InvalidInputError: as for `encode`.
        """
        ...

    def tokens(self, ids: Sequence[int], text: str = "") -> list[str | None]:
        """Return the vocabulary's entry of each id, None for ids that have none.

        A model without a vocabulary knows the terms of `text` alone.
        """
        ...

    def size_bytes(self, dtype: torch.dtype) -> int:
        """Return the bytes that the weights take on a device in `dtype`, known without loading them."""
        ...

    def load(self, device: torch.device, dtype: torch.dtype, cores: int = 1) -> Model:
        """Return the model with its weights on the device; so many cores may be busy with that.

        Raises:
            CheckpointError: the weights are damaged or do not fit the configuration.
        """
        ...
