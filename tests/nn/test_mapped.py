"""Reading mapped memory before it is computed with."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tercet.nn import mapped

PAGES = 300


@pytest.fixture
def tensor(tmp_path: Path) -> Tensor:
    """A tensor of a mapped file that is on disk alone."""
    file = tmp_path / "numbers"
    file.write_bytes(bytes(PAGES * mmap.PAGESIZE))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return torch.from_file(str(file), size=PAGES * mmap.PAGESIZE // 4)


def pages_in_memory(tensor: Tensor) -> int:
    held = (ctypes.c_ubyte * PAGES)()
    where, size = ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(tensor.nbytes)
    assert ctypes.CDLL(None).mincore(where, size, held) == 0
    return sum(page & 1 for page in held)


@pytest.mark.skipif(sys.platform != "linux", reason="mincore")
@pytest.mark.parametrize("asked", [True, False])
def test_every_page_is_read(tensor: Tensor, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not asked:
        monkeypatch.setattr(mapped, "_is_in_memory", lambda address: False)
    if pages_in_memory(tensor) == PAGES:
        pytest.skip("this file system keeps files in memory")
    mapped.bring_in(tensor[5:])
    assert pages_in_memory(tensor) == PAGES
    mapped.bring_in(tensor)
