"""An inference without a model: vectors drawn from a hash of the text, the same in every process, thousands at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tercet.types import Embeddings, ModelInfo, Scores

DIMS = 16


def vector(model: str, text: str) -> np.ndarray:
    """Return the unit vector that stands for a text, (16,) float32."""
    seed = hashlib.blake2b(f"{model}\0{text}".encode(), digest_size=2 * DIMS).digest()
    drawn = np.frombuffer(seed, "<u2").astype(np.float32) - 2**15
    return drawn / np.linalg.norm(drawn)


class Hashing:
    """What adapters take for an engine, fast enough for tests of stores with very many documents."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, model: str, items: Sequence[str], **choices: Any) -> Embeddings:
        self.encoded += len(items)
        zeros = np.zeros(len(items), np.int32)
        dense = np.stack([vector(model, text) for text in items])
        return Embeddings(model, None, [None] * len(items), zeros, zeros.astype(bool), dense=dense)

    def score(self, model: str, query: Any, items: Sequence[Any], **choices: Any) -> Scores:
        raise NotImplementedError

    def models(self) -> list[ModelInfo]:
        return []

    def describe(self, model: str) -> ModelInfo:
        sizes = {"size_bytes": 0, "resident_bytes": 0, "pinned": False, "max_length": 512}
        kinds = {"architecture": "Hashing", "backbone": "none", "state": "resident", "precision": "float32"}
        able = {"outputs": ("dense",), "scoring": (), "dims": {"dense": DIMS}, "kernels": {}}
        return ModelInfo(id=model, revision=None, fingerprint=f"hash of {model}", **sizes, **kinds, **able)
