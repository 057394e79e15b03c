"""Memory in large pages."""

from __future__ import annotations

import mmap

import pytest
import torch

from tercet.nn import large_pages


def test_it_begins_with_a_large_page_and_lives_as_long_as_its_parts() -> None:
    memory = large_pages.empty(3_000_001)
    assert memory.shape == (3_000_001,) and memory.dtype == torch.uint8
    if hasattr(mmap, "MADV_HUGEPAGE"):
        assert memory.data_ptr() % (2 << 20) == 0
    first, last = memory[:64].view(torch.float32), memory[-1:]
    del memory
    first.fill_(1.5)
    last.fill_(7)
    assert first.sum() == 24 and last.item() == 7


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no large pages to ask for")
def test_a_kernel_without_large_pages_gives_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *of: int) -> None:
            raise OSError("not in this kernel")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    memory = large_pages.empty(100)
    assert memory.fill_(3).sum() == 300


def test_a_system_without_them_gives_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert large_pages.empty(100).fill_(2).sum() == 200
