"""Products with weights by rows: what `test_linear.py` does not ask of every kernel."""

from __future__ import annotations

import ctypes
import mmap

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.nn.by_rows import RowWeight
from tercet.nn.jit import code, product_kernel
from tercet.nn.jit.code import vector_shape

if vector_shape() is None:
    pytest.skip("this processor has no vectors that the kernel is for", allow_module_level=True)


def draw(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lanes,registers", [(4, 32), (8, 16), (16, 32)])
def test_vectors_of_any_width_give_the_same_bytes(lanes: int, registers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, residual = draw(13, 300), RowWeight(draw(70, 300, seed=1)), draw(13, 70, seed=2)
    own = weight.multiply(x, None, "gelu", residual)
    for module in (code, product_kernel):
        monkeypatch.setattr(module, "vector_shape", lambda: (lanes, registers))
    monkeypatch.setattr(product_kernel.product_kernel, "kept", {})
    assert torch.equal(own, weight.multiply(x, None, "gelu", residual))


def test_one_row_comes_out_as_among_many() -> None:
    x, weight = draw(700, 300), RowWeight(draw(70, 300, seed=1))
    together = weight.multiply(x, None, None, None)
    for row in (0, 95, 96, 511, 512, 699):
        assert torch.equal(weight.multiply(x[row : row + 1], None, None, None), together[row : row + 1])


def test_few_rows_come_out_as_among_many() -> None:
    x, weight = draw(30, 300), RowWeight(draw(70, 300, seed=1))
    together = weight.multiply(x, None, None, None)
    for rows in range(1, 30):
        assert torch.equal(weight.multiply(x[:rows], None, None, None), together[:rows])


def test_gelu_is_what_its_docstring_says() -> None:
    x = torch.linspace(-12, 12, 64 * 3001).view(64, -1)
    weight = RowWeight(torch.eye(64))
    ours = weight.multiply(x.T.contiguous(), None, "gelu", None).T
    wrong = (ours - F.gelu(x.double())).abs()
    assert (wrong <= torch.where(x.abs() <= 1, 3e-7, 2e-7 * x.abs())).all()


@pytest.mark.parametrize(("width", "vectors"), [(48, 3), (64, 2), (96, 3), (128, 2), (384, 3), (1000, 3), (1024, 3)])
def test_panels_are_wide_where_that_wastes_little(width: int, vectors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_kernel, "vector_shape", lambda: (16, 32))
    assert product_kernel.vectors_of(width) == vectors
    monkeypatch.setattr(product_kernel, "vector_shape", lambda: (8, 16))
    assert product_kernel.vectors_of(width) == 2


@pytest.mark.parametrize("rows", [1, 7, 13, 700])
def test_panels_change_nothing(rows: int) -> None:
    """Nor does it whether the weight's rows lie in one tensor or in several."""
    x, weight, residual = draw(rows, 300), draw(166, 300, seed=1), draw(rows, 166, seed=2)
    whole, parted = RowWeight(weight), RowWeight(weight[:64], weight[64:96], weight[96:])
    before = whole.multiply(x, weight[:, 0].contiguous(), "gelu", residual)
    for product in (parted, whole):
        assert torch.equal(product.multiply(x, weight[:, 0].contiguous(), "gelu", residual), before)
        for _ in range(2):
            product.lay()
            assert torch.equal(product.multiply(x, weight[:, 0].contiguous(), "gelu", residual), before)


def test_the_kernel_for_panels_is_compiled_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_kernel.product_kernel, "kept", {})
    x, weight = draw(3, 64), RowWeight(draw(48, 64, seed=1))
    vectors = product_kernel.vectors_of(48)
    weight.multiply(x, None, "gelu", None)
    assert set(product_kernel.product_kernel.kept) == {(False, vectors, False)}
    weight.lay()
    assert set(product_kernel.product_kernel.kept) == {(False, vectors, False), (True, vectors, False)}


def test_the_weight_stays_where_it_is() -> None:
    """A weight of a mapped file is neither copied nor read beyond its end, where nothing may be mapped."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    width = page // 4 // 48
    lost = page - 48 * width * 4
    weight = torch.frombuffer(memory, dtype=torch.float32, count=48 * width, offset=lost).view(48, width)
    weight.copy_(draw(48, width))
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    assert mprotect(ctypes.c_void_p(weight.data_ptr() - lost + page), ctypes.c_size_t(page), 0) == 0
    x, held = draw(5, width, seed=1), RowWeight(weight)
    expected = F.linear(x.double(), weight.double())
    assert torch.allclose(held.multiply(x, None, None, None).double(), expected, atol=4e-6)
    weight.zero_()
    assert not held.multiply(x, None, None, None).any()
