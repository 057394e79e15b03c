"""Results with drawn values, and when two results are the same."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tercet.quantize import quantize, quantize_multivector
from tercet.types import (
    OUTPUT_DTYPES,
    Embeddings,
    ModelInfo,
    MultiVectorBatch,
    OutputDType,
    Scores,
    SparseBatch,
    SparseVector,
    Timings,
)

WIDTH = 16
_IDS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_TIMINGS = st.none() | st.builds(Timings, *[st.floats(0, 1e6)] * 4)


def vectors(rng: np.random.Generator, *shape: int) -> Any:
    """Return float32 numbers over the whole range of exponents that float16 still holds."""
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 4, shape)).astype(np.float32)


def embeddings(
    seed: int, outputs: frozenset[str], dtype: OutputDType, ids: list[str | None], timings: Timings | None = None
) -> Embeddings:
    """Return embeddings of as many items as there are ids."""
    rng, size = np.random.default_rng(seed), len(ids)
    dense, quantization = quantize(vectors(rng, size, WIDTH), dtype)
    rows = [sparse_row(rng) for _ in ids]
    matrices = [vectors(rng, int(rng.integers(0, 4)), WIDTH) for _ in ids]
    multivector = quantize_multivector(MultiVectorBatch.from_rows(matrices, WIDTH), dtype)
    return Embeddings(
        model="some/modèle",
        revision="abc" if seed % 2 else None,
        ids=ids,
        tokens=rng.integers(0, 1000, size, dtype=np.int32),
        truncated=rng.random(size) < 0.5,
        dense=dense if "dense" in outputs else None,
        quantization=quantization if "dense" in outputs else None,
        sparse=SparseBatch.from_rows(rows, 2**32) if "sparse" in outputs else None,
        multivector=multivector if "multivector" in outputs else None,
        timings=timings,
    )


def sparse_row(rng: np.random.Generator) -> SparseVector:
    """Return a lexical vector, empty now and then, its indices up to the largest."""
    size = int(rng.integers(0, 5))
    indices = np.sort(rng.choice(2**32 - 1, size, replace=False)).astype(np.uint32)
    return SparseVector(indices, rng.random(size, dtype=np.float32) + np.float32(1e-6))


def scores(seed: int, size: int, top_k: int | None = None, timings: Timings | None = None) -> Scores:
    """Return scores with ties."""
    rng = np.random.default_rng(seed)
    values = vectors(rng, size)
    values[rng.random(size) < 0.3] = 0.5
    return Scores(
        model="m",
        revision="r",
        ids=[f"d{i}" if i % 3 else None for i in range(size)],
        scores=values,
        order=np.argsort(-values, kind="stable")[:top_k],
        tokens=rng.integers(0, 1000, size, dtype=np.int32),
        truncated=rng.random(size) < 0.5,
        timings=timings,
    )


def drawn_embeddings(max_size: int = 4) -> st.SearchStrategy[Embeddings]:
    """Return a strategy of embeddings of every combination of outputs and types."""
    outputs = st.frozensets(st.sampled_from(["dense", "sparse", "multivector"]), min_size=1)
    ids = st.lists(_IDS, min_size=1, max_size=max_size)
    return st.builds(embeddings, st.integers(0, 2**32), outputs, st.sampled_from(OUTPUT_DTYPES), ids, _TIMINGS)


def model_info(**changes: Any) -> ModelInfo:
    """Return a description with every field set."""
    values = {
        "id": "org/name",
        "revision": "abc",
        "architecture": "BertModel",
        "backbone": "Bert, packed",
        "state": "resident",
        "outputs": ("dense", "multivector"),
        "scoring": ("dense", "maxsim"),
        "dims": {"dense": 32, "multivector": 32},
        "max_length": 512,
        "precision": "float32",
        "kernels": {"attention": "runs"},
        "size_bytes": 7,
        "resident_bytes": 7,
        "pinned": True,
        "load_ms": 1.5,
        "last_used_s": 0.25,
        "hits": 3,
        "loads": 2,
        "evictions": 1,
        "notes": ("a note",),
    }
    return ModelInfo(**{**values, **changes})


def assert_same(one: Any, other: Any, *, but: tuple[str, ...] = ()) -> None:
    """Raise unless two results are the same to the last bit, down to types and shapes; `but` names fields to skip."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            if field.name not in but:
                assert_same(getattr(one, field.name), getattr(other, field.name), but=but)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other
