"""Rows and models for the tests of the LanceDB adapter."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from support.hub_cache import cached
from support.tiny_models import save_bert, save_m3

BERT, OTHER, M3 = "tiny/bert", "tiny/other", "tiny/m3"

SUBJECTS = (
    "the quick brown fox",
    "a lazy dog",
    "numbers of 1999",
    "hello world",
    "river banks in spring",
    "city lights",
)


def save_models(cache: Path) -> None:
    """Put three tiny models into a hub cache: a BERT, another with the same shape, and one with every output."""
    save_bert(cached(cache, BERT))
    save_bert(cached(cache, OTHER), seed=1)
    save_m3(cached(cache, M3))


def text(i: int) -> str:
    """Return a text that no other number has."""
    return f"{SUBJECTS[i % len(SUBJECTS)]}, note {i}"


def rows(count: int, start: int = 0) -> pa.Table:
    """Return rows with an id, a text and a number."""
    numbers = range(start, start + count)
    columns = {"id": [f"d{i}" for i in numbers], "text": [text(i) for i in numbers], "n": list(numbers)}
    return pa.table(columns, schema=pa.schema({"id": pa.string(), "text": pa.string(), "n": pa.int64()}))
