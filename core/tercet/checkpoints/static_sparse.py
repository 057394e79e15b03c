"""Inference-free queries: lexical weights read off a table; Geng et al. 2024, arXiv:2411.04403."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tercet.checkpoints.checkpoint import Ready
from tercet.checkpoints.files import read_settings
from tercet.checkpoints.spec import StaticSparseSpec
from tercet.checkpoints.template import Ids, cut
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import CheckpointError, InvalidInputError
from tercet.types import SparseVector, Truncate


class StaticSparse:
    """One weight for each token id; a text's vector holds those of its distinct tokens. Thread-safe."""

    def __init__(self, spec: StaticSparseSpec, tokenizer: Tokenizer) -> None:
        self.spec = spec
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str], max_length: int, truncate: Truncate, first: int) -> list[Ready]:
        """Return one ready answer per text; special tokens carry no weight.

        Raises:
            InvalidInputError: a text is too long under `truncate="none"`.
            CheckpointError: the table cannot be read.
        """
        ids = self.tokenizer.content(texts, limit=max_length, truncate=truncate, first=first)
        for i, text in enumerate(ids, first):
            if len(text) > max_length and truncate == "none":
                raise InvalidInputError(
                    f"item {i} has more than {max_length} tokens; shorten it, or let it be truncated"
                )
        return [self._ready(cut(text, max_length, truncate), len(text) > max_length) for text in ids]

    def _ready(self, ids: Ids, truncated: bool) -> Ready:
        distinct = np.unique(ids)
        weights = self.weights[distinct]
        kept = weights > 0
        vector = SparseVector(distinct[kept].astype(np.uint32), weights[kept])
        return Ready({"sparse": vector}, tokens=len(ids), truncated=truncated)

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """(V,) float32.

        Raises:
            CheckpointError: the table cannot be read, or is not one weight per entry of the vocabulary.
        """
        weights = self._from_json() if self.spec.path.suffix == ".json" else self._from_safetensors()
        if weights.shape != (self.spec.dims,):
            raise CheckpointError(
                f"{self.spec.path} holds {weights.shape}, the vocabulary has {self.spec.dims} entries"
            )
        return weights

    def _from_safetensors(self) -> NDArray[np.float32]:
        try:
            return load_file(self.spec.path)["weight"].astype(np.float32)
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(f"{self.spec.path} cannot be read as a table of weights: {error}") from error

    def _from_json(self) -> NDArray[np.float32]:
        weights = np.zeros(self.spec.dims, np.float32)
        for token, weight in read_settings(self.spec.path).items():
            index = self.tokenizer.token_to_id(token)
            if index is None or not isinstance(weight, int | float):
                raise CheckpointError(
                    f"{self.spec.path} gives {token!r} the weight {weight!r}; the token must be known"
                )
            weights[index] = weight
        return weights
