"""Texts for benchmarks: English-like, of lognormal length, the same on every machine."""

from __future__ import annotations

import pydoc_data.topics
import re

import numpy as np

# Words in natural frequencies and order, from documentation that every Python carries.
_WORDS = re.findall(r"[A-Za-z]+[,.;:]?", " ".join(pydoc_data.topics.topics.values()))
_TOKENS_PER_WORD = 1.22  # of these words, by the bundled WordPiece tokeniser


def mixed_texts(count: int, seed: int = 0, shortest: int = 6, longest: int = 340) -> list[str]:
    """Return texts of lognormal length: about 8 to 512 WordPiece tokens, mean about 133.

    Args:
        count: how many.
        seed: of the generator.
        shortest: words. longest: words.
    """
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(4.45, 0.75, count), shortest, longest).astype(int)
    starts = rng.integers(0, len(_WORDS) - longest, count)
    return [" ".join(_WORDS[start : start + n]) for start, n in zip(starts, lengths, strict=True)]


def short_queries(count: int, seed: int = 1) -> list[str]:
    """Return queries of 4 to 10 words."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(_WORDS) - 10, count)
    return [" ".join(_WORDS[start : start + n]) for start, n in zip(starts, rng.integers(4, 11, count), strict=True)]


def long_texts(count: int, seed: int = 2, shortest: int = 2000, longest: int = 8000) -> list[str]:
    """Return documents of about so many WordPiece tokens: the shortest, the longest, and evenly between in ratio."""
    words = np.geomspace(shortest, longest, count) / _TOKENS_PER_WORD
    starts = np.random.default_rng(seed).integers(0, len(_WORDS) - int(words.max()), count)
    return [" ".join(_WORDS[start : start + int(n)]) for start, n in zip(starts, words, strict=True)]
