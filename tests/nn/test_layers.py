"""The feed-forward in parts: what does not fit in cache is computed some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tercet.nn import layers as module
from tercet.nn.layers import FeedForward
from tercet.nn.linear import even_rows, layout_of, prepare
from tercet.nn.team import compute_with


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Parts are for a core that computes alone."""
    before = torch.get_num_threads()
    compute_with(1)
    yield
    compute_with(before)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", [385, 640, 1024])
@pytest.mark.parametrize("added", [False, True])
def test_parts_give_the_bytes_of_the_whole(
    gated: bool, rows: int, added: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    ffn = FeedForward(48, 64, "gelu", gated=gated)
    for parameter in ffn.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    prepare(ffn)
    if layout_of(ffn) is None:
        pytest.skip("products run by rows on this processor, and in one part")
    x = torch.randn(rows, 48, generator=generator)
    residual = torch.randn(rows, 48, generator=generator) if added else None
    counts, forward = [], FeedForward._forward
    monkeypatch.setattr(FeedForward, "_forward", lambda ffn, x, r: (counts.append(len(x)), forward(ffn, x, r))[1])
    parts = ffn(x, residual)
    monkeypatch.setattr(module, "_ROWS_IN_CACHE", rows)
    assert torch.equal(parts, ffn(x, residual))
    monkeypatch.setattr(module, "_ROWS_IN_CACHE", 1)
    monkeypatch.setattr(module, "_PARTED_WEIGHTS", 1)
    assert torch.equal(parts, ffn(x, residual))
    *parted, whole, again = counts
    assert again == rows, "large products are not parted"
    assert whole == sum(parted) == rows and 2 <= len(parted) <= 4 and max(parted) <= 384


def test_parts_have_row_counts_that_products_are_given_anyway() -> None:
    prepared = torch.nn.Sequential(module.Linear(16, 16, bias=False))
    torch.nn.init.zeros_(prepared[0].weight)
    prepare(prepared)
    if (layout := layout_of(prepared)) is None:
        pytest.skip("products run by rows on this processor")
    for rows in {even_rows(n, layout) for n in range(1, 2049)}:
        part = -(-rows // module._parts(rows))
        assert even_rows(part, layout) == part and part * module._parts(rows) == rows
