"""BM25 as sparse vectors, compatible with Qdrant's: hashed stems, document weights here, IDF in the store.

Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond". Of the score
Σ_t idf(t) · tf(k + 1) / (tf + k(1 − b + b · len / avg_len)), documents carry the fraction, queries carry 1 for each
distinct term, and whoever holds the collection multiplies by idf (in Qdrant the modifier "idf").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import mmh3
import numpy as np
import torch
from numpy.typing import NDArray
from py_rust_stemmers import SnowballStemmer
from torch import nn

from tercet.checkpoints.checkpoint import EncodeSettings, PairSettings, Prepared, Ready
from tercet.checkpoints.fingerprint import fingerprint
from tercet.checkpoints.spec import Bm25Spec, ModelSpec
from tercet.errors import InvalidInputError, ModelNotFoundError, UnsupportedOperationError
from tercet.nn.model import Model
from tercet.types import Item, SparseVector

MODEL_ID = "bm25"

_WORDS = re.compile(r"\w+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_WORD = 40  # longer ones are hashes, base64 and the like
_CACHED_WORDS = 1 << 18
_LANGUAGES = (
    *("arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian"),
    *("norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish"),
)
_STOPWORDS = Path(__file__).with_name("stopwords")

# Qdrant's defaults: how fast repeated words count less, how much length counts, and the assumed length of a document.
_K, _B, _AVERAGE_LENGTH = 1.2, 0.75, 256.0

Weigh = Callable[[NDArray[np.uint32]], SparseVector]


def is_bm25(model: str) -> bool:
    """Return whether an id names this model: `bm25`, or `bm25:german` and so on."""
    return model == MODEL_ID or model.startswith(f"{MODEL_ID}:")


class Bm25Checkpoint:
    """The model `bm25` (English) or `bm25:<language>`, a `Checkpoint` without weights. Thread-safe.

    Words are the runs of letters, digits and underscores of the lower-cased text; stopwords, lone underscores and words
    of more than 40 characters are dropped; the rest is stemmed (Snowball) and hashed. The vector is a pure function of
    the text. Stemmer, words and hash are Qdrant's, so vectors of both may stand in one collection.

    Raises:
        ModelNotFoundError: there is no stemmer for the language; the message lists those that exist.
    """

    def __init__(self, model: str = MODEL_ID) -> None:
        language = model.removeprefix(MODEL_ID).removeprefix(":") or "english"
        if not is_bm25(model) or language not in _LANGUAGES:
            raise ModelNotFoundError(
                f"{model}: no such BM25 model; use {MODEL_ID!r} or '{MODEL_ID}:<language>' with one of "
                f"{', '.join(_LANGUAGES)}"
            )
        self._stopwords = _stopwords(language)
        self._stemmer = SnowballStemmer(language)
        self._index = lru_cache(_CACHED_WORDS)(self._hashed_stem)
        self._spec = _spec(model, language, bool(self._stopwords))

    @property
    def spec(self) -> ModelSpec:
        """What the model is: one sparse output over 2**32 hashed terms."""
        return self._spec

    @property
    def fingerprint(self) -> str:
        """What is equal for equal vectors: the language decides them all."""
        return fingerprint(self._spec)

    @property
    def tokenizer(self) -> None:
        """Nothing: its words are hashed."""

    def encode(self, items: Sequence[Item], settings: EncodeSettings, first: int = 0) -> list[Prepared]:
        """Return one ready sparse vector per item; a text without terms gives an empty one.

        Raises:
            InvalidInputError: an item has no text or holds a lone surrogate, or a prompt is given.
        """
        if settings.prompt:
            raise InvalidInputError(f"{self._spec.id} matches words and takes no prompt; leave `prompt` out")
        weigh = _query_vector if settings.is_query else _document_vector
        return [self._ready(_text(item, i), weigh) for i, item in enumerate(items, first)]

    def pairs(self, query: Item, documents: Sequence[Item], settings: PairSettings, first: int = 0) -> list[Prepared]:
        """Raise, for no model reads query and document together here.

        Raises:
            UnsupportedOperationError: always.
        """
        raise UnsupportedOperationError(
            f"{self._spec.id} is no cross-encoder: encode the query and the documents, "
            "and take the dot product of their sparse vectors"
        )

    def tokens(self, ids: Sequence[int], text: str = "") -> list[str | None]:
        """Return for each id a word of `text` that is hashed to it; stems cannot be had back from their hashes."""
        words = {self._index(word): word for word in reversed(_WORDS.findall(text.lower()))}
        return [words.get(index) for index in ids]

    def size_bytes(self, dtype: torch.dtype) -> int:
        """Return 0."""
        return 0

    def load(self, device: torch.device, dtype: torch.dtype, cores: int = 1) -> Model:
        """Return a model without weights or heads, since every answer is ready before the device is asked."""
        return Model(nn.Identity(), {})

    def _ready(self, text: str, weigh: Weigh) -> Ready:
        terms = np.fromiter(self._terms(text), np.uint32)
        return Ready({"sparse": weigh(terms)}, tokens=len(terms))

    def _terms(self, text: str) -> Iterator[int]:
        """Yield the index of each term, in text order."""
        for word in _WORDS.findall(text.lower()):
            if len(word) <= _LONGEST_WORD and (index := self._index(word)) is not None:
                yield index

    def _hashed_stem(self, word: str) -> int | None:
        """Return |murmur3(stem)|, as Qdrant defines the index of a term, or None for a word that is no term."""
        if word == "_" or word in self._stopwords:
            return None
        stem = self._stemmer.stem_word(word)
        return abs(mmh3.hash(stem)) if stem else None


def _query_vector(terms: NDArray[np.uint32]) -> SparseVector:
    indices = np.unique(terms)
    return SparseVector(indices, np.ones(len(indices), np.float32))


def _document_vector(terms: NDArray[np.uint32]) -> SparseVector:
    """Return tf(k + 1) / (tf + k(1 − b + b · len / avg_len)); stems that share an index count as one term."""
    indices, tf = np.unique(terms, return_counts=True)
    weights = tf * (_K + 1) / (tf + _K * (1 - _B + _B * len(terms) / _AVERAGE_LENGTH))
    return SparseVector(indices, weights.astype(np.float32))


def _text(item: Item, i: int) -> str:
    if item.text is None:
        raise InvalidInputError(f"item {i} has token ids and no text; {MODEL_ID} has no vocabulary, give it texts")
    if surrogate := _SURROGATE.search(item.text):
        raise InvalidInputError(
            f"item {i} holds a lone surrogate (U+{ord(surrogate[0]):04X} at {surrogate.start()}), "
            "which is no character; decode the text with errors='replace'"
        )
    return item.text


def _stopwords(language: str) -> frozenset[str]:
    path = _STOPWORDS / f"{language}.txt"
    return frozenset(path.read_text(encoding="utf-8").split()) if path.exists() else frozenset()


def _spec(model: str, language: str, stopwords: bool) -> ModelSpec:
    kept = f"no stopword list for {language}: its frequent words are kept, and count little under IDF"
    return ModelSpec(
        id=model,
        revision=None,
        directory=_STOPWORDS,
        config={},
        architecture="BM25",
        heads={"sparse": Bm25Spec(language)},
        max_length=np.iinfo(np.int32).max,  # there is no limit
        weights=(),
        size_bytes=0,
        notes=() if stopwords else (kept,),
    )
