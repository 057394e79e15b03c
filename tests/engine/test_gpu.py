"""The engine on an NVIDIA device: the same answers as on a CPU, whatever else is under way, and models that swap."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.gpu import NEEDS_GPU
from support.tiny_models import save_bert
from tercet import Engine

pytestmark = NEEDS_GPU

WORDS = [
    "hello",
    "world",
    "the",
    "quick",
    "brown",
    "fox",
    "numbers",
    "0",
    "1",
    "2",
    "café",
    "vectors",
    "and",
    "documents",
]
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 128}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = [tmp_path_factory.mktemp(f"bert{seed}") for seed in range(3)]
    for seed, folder in enumerate(folders):
        save_bert(folder, seed, **SIZES)
    return list(map(str, folders))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 100, 500)]


@pytest.fixture(scope="module")
def expected(models: list[str], texts: list[str]) -> dict[str, np.ndarray]:
    with Engine(device="cpu", precision="float32") as engine:
        return {model: engine.encode(model, texts).dense for model in models}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(device="cuda", precision="float32") as engine:
        yield engine


def least_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours * theirs).sum(1).min())


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_float32_equals_the_cpu(engine: Engine, models: list[str], texts: list[str], expected: dict) -> None:
    ours = engine.encode(models[0], texts).dense
    assert np.abs(unit(ours) - unit(expected[models[0]])).max() <= 1e-5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_many_callers_get_their_own_vectors(
    precision: str, models: list[str], texts: list[str], expected: dict
) -> None:
    with Engine(device="cuda", precision=precision) as engine, ThreadPoolExecutor(16) as callers:

        def call(i: int) -> float:
            model, first = models[i % 3], i * 7 % 480
            ours = engine.encode(model, texts[first : first + i % 20 + 1]).dense
            return least_cosine(unit(ours), unit(expected[model][first : first + len(ours)]))

        assert min(callers.map(call, range(400))) >= 0.999
        assert least_cosine(unit(engine.encode(models[0], texts).dense), unit(expected[models[0]])) >= 0.999


def test_evicted_models_are_parked_and_come_back(models: list[str], texts: list[str], expected: dict) -> None:
    with Engine(device="cuda", precision="bfloat16") as engine:
        size = engine.describe(models[0]).size_bytes
    with Engine(device="cuda", precision="bfloat16", memory_budget=size * 2) as engine:
        for i in range(12):
            model = models[i % 3]
            ours = engine.encode(model, texts[:50]).dense
            assert least_cosine(unit(ours), unit(expected[model][:50])) >= 0.999
            time.sleep(0.2)  # so that the copy is made
        states = sorted(info.state for info in engine.models())
        assert states == ["parked", "resident", "resident"]
        assert all(engine.unload(model) for model in models)
        assert {info.state for info in engine.models()} == {"available"}


def test_results_outlive_the_engine(models: list[str], texts: list[str]) -> None:
    with Engine(device="cuda", precision="bfloat16") as engine:
        kept = engine.encode(models[0], texts[:3], output_types=["dense", "multivector"])
        copy = kept.dense.copy(), [row.copy() for row in kept.multivector]
        engine.encode(models[0], texts)
    assert np.array_equal(kept.dense, copy[0])
    assert all(np.array_equal(a, b) for a, b in zip(kept.multivector, copy[1], strict=True))


def test_a_text_alone_equals_itself_in_a_batch(engine: Engine, models: list[str], texts: list[str]) -> None:
    together = engine.encode(models[0], texts).dense
    alone = np.stack([engine.encode(models[0], text)["dense"] for text in texts[:40]])
    assert np.abs(unit(together[:40]) - unit(alone)).max() <= 1e-6
