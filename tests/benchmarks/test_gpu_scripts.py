"""What the benchmark scripts for a GPU do besides computing on one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from support.scripts import modules


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    yield from modules(("gpu", "gpu_bulk", "gpu_gemm", "gpu_parts", "models"), monkeypatch)


def test_products_are_tried_with_as_many_rows_in_all(scripts: SimpleNamespace) -> None:
    products = scripts.gpu_gemm.Products(SimpleNamespace(model="base", device="cpu", rows=2))
    products.layers = replace(products.layers, hidden=8, count=2, passes=3)
    products.load()
    products.run([])
    assert products.answers([]).shape == (1, 4) and (products.answers([]) > 0).all()
    seen: list[int] = []
    products._pass = lambda inputs: seen.append(len(inputs[8]))
    products.run([])
    assert {rows: rows * seen.count(rows) for rows in seen} == dict.fromkeys([2, 4, 8, 16], 3 * 16)


def test_a_batch_size_that_does_not_fit_is_not_taken(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts.models, "checkpoint", lambda name: name)
    asked = SimpleNamespace(model="minilm", device="cpu", texts=2)
    batches = scripts.gpu_bulk.BestBatches(asked)

    def encode(texts: list[str], batch_size: int) -> list[str]:
        if batch_size > 64:
            raise torch.OutOfMemoryError
        return texts

    batches.model = SimpleNamespace(encode=encode)
    assert [batches._seconds(size) < float("inf") for size in scripts.gpu_bulk.SIZES] == [True, True, False, False]


def test_time_that_spans_cover_counts_once(scripts: SimpleNamespace) -> None:
    assert scripts.gpu_parts.covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (5.5, 5.7)]) == 4.0
    assert scripts.gpu_parts.covered([]) == 0.0


def test_a_batch_of_some_lengths_fills_a_pass(scripts: SimpleNamespace) -> None:
    lengths = scripts.gpu_parts.within(list(range(8, 513)))
    assert 15_000 < sum(lengths) <= 16_384 and lengths[0] == 8 and lengths[-1] == 512


def test_without_a_device_a_gpu_script_says_so(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs an NVIDIA device"):
        scripts.gpu.device_facts("cuda", ["tercet", "torch"])
    assert "without a GPU" in scripts.gpu.device_facts("cpu", ["tercet", "torch"]).processor
