"""The compiled kernel beyond what `test_attention.py` asks of every way: its blocks, vectors, types and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nn.test_attention import assert_close, batch_of, draw, naive
from tercet.nn import fused_attention as fused_attention_module
from tercet.nn import team
from tercet.nn.fused_attention import fused_attention, fuses
from tercet.nn.jit import code
from tercet.nn.jit.attention_kernel import attention_kernel
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.team import compute_with

if vector_shape() is None:
    pytest.skip("this processor has no vectors that this is for", allow_module_level=True)

LENGTHS = (1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257, 600)
ALL = (-1, -1)


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile within this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(attention_kernel, "kept", {})


@pytest.mark.parametrize("lanes,registers", [(4, 32), (8, 16), (16, 32)])
@pytest.mark.parametrize("window", [ALL, (40, 5)])
@pytest.mark.usefixtures("anew")
def test_vectors_of_any_width_give_the_same_bytes(
    lanes: int, registers: int, window: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(LENGTHS)
    q, k, v = draw(batch, heads=3, kv_heads=3, dims=32)
    own = fused_attention(q, k, v, batch, 0.2, window)
    attention_kernel.kept.clear()
    monkeypatch.setattr(code, "vector_shape", lambda: (lanes, registers))
    other = fused_attention(q, k, v, batch, 0.2, window)
    assert_close(other, naive(q, k, v, batch, scale=0.2, window=window))
    assert torch.equal(own, other)


@pytest.mark.parametrize("dims", [16, 32, 48, 80, 128, 256])
def test_heads_of_any_width(dims: int) -> None:
    batch = batch_of((5, 33, 140))
    q, k, v = draw(batch, dims=dims)
    assert_close(fused_attention(q, k, v, batch, dims**-0.5, ALL), naive(q, k, v, batch))


def test_no_kernel_where_processes_may_not_make_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("JIT is not allowed")

    monkeypatch.setattr(code.llvm, "check_jit_execution", refuse)
    assert vector_shape.__wrapped__() is None


def test_which_heads_have_a_kernel() -> None:
    lanes, cpu = vector_shape()[0], torch.device("cpu")
    assert all(fuses(cpu, dtype, n * lanes) for dtype in (torch.float32, torch.bfloat16) for n in (1, 2, 256 // lanes))
    assert not fuses(cpu, torch.float32, lanes + 1) and not fuses(cpu, torch.float32, 256 + lanes)
    assert not fuses(cpu, torch.float16, lanes) and not fuses(torch.device("cuda"), torch.float32, lanes)


@pytest.mark.parametrize("dtype,coarse", [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
@pytest.mark.parametrize("window", [ALL, (31, 64)])
def test_a_sequence_has_the_same_bytes_in_any_company(
    dtype: torch.dtype, coarse: bool, window: tuple[int, int]
) -> None:
    batch = batch_of(LENGTHS)
    q, k, v = (x.to(dtype) for x in draw(batch, dims=32))

    def attend(rows: Tensor, lengths: tuple[int, ...]) -> Tensor:
        return fused_attention(q[rows], k[rows], v[rows], batch_of(lengths), 0.25, window, coarse=coarse)

    every = torch.arange(len(q))
    together = attend(every, LENGTHS)
    for length, rows in zip(LENGTHS, every.split(LENGTHS), strict=True):
        assert torch.equal(together[rows], attend(rows, (length,)))


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("dims", [32, 96])
@pytest.mark.parametrize("window", [ALL, (40, 5)])
def test_bfloat16_is_as_exact_as_what_it_is_written_in(
    tiles: bool, dims: int, window: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiles and not has_tiles():
        pytest.skip("this processor has no tiles of bfloat16")
    monkeypatch.setattr(fused_attention_module, "has_tiles", lambda: tiles)
    batch = batch_of(LENGTHS)
    q, k, v = (x.bfloat16() for x in draw(batch, heads=4, kv_heads=2, dims=dims))
    ours = fused_attention(q, k, v, batch, 0.2, window).double()
    exact = naive(*(x.double() for x in (q, k, v)), batch, scale=0.2, window=window)
    # Half a unit in the last of bfloat16's eight bits, and what float32 and 16 bits of each weight leave out of sums.
    assert ((ours - exact).abs() <= 2.0**-8 * exact.abs() + 1e-4).all()


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("window", [ALL, (40, 5)])
def test_coarse_float32_is_rounded_to_bfloat16_where_there_are_tiles(
    tiles: bool, window: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiles and not has_tiles():
        pytest.skip("this processor has no tiles of bfloat16")
    monkeypatch.setattr(fused_attention_module, "has_tiles", lambda: tiles)
    batch = batch_of(LENGTHS)
    exact = draw(batch, heads=4, kv_heads=2, dims=32)
    rounded = [((x.view(torch.int32) + (1 << 15)) >> 16 << 16).view(torch.float32) for x in exact]  # ties go outwards
    ours = fused_attention(*exact, batch, 0.2, window, coarse=True)
    assert_close(ours, naive(*(rounded if tiles else exact), batch, scale=0.2, window=window), 1e-4 if tiles else 2e-6)


def test_parts_of_one_product_are_read_where_they_lie() -> None:
    batch = batch_of((9, 40))
    product = torch.randn(49, 12, 16)
    q, k, v = product.split(4, 1)
    expected = fused_attention(q.contiguous(), k.contiguous(), v.contiguous(), batch, 0.25, ALL)
    assert torch.equal(fused_attention(q, k, v, batch, 0.25, ALL), expected)
    turned = product.transpose(0, 1).contiguous().transpose(0, 1).split(4, 1)  # heads apart: copied first
    assert torch.equal(fused_attention(*turned, batch, 0.25, ALL), expected)


@pytest.mark.parametrize("openmp", [True, False])
def test_cores_share_the_work_and_change_nothing(openmp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenMP runs no foreign code, one core does all."""
    if not openmp:
        monkeypatch.setattr(team, "_fork", lambda: None)
    batch = batch_of(LENGTHS * 3)
    q, k, v = draw(batch)

    def attend(cores: int) -> Tensor:
        compute_with(cores)
        return fused_attention(q, k, v, batch, 0.25, ALL)

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        assert torch.equal(one.submit(attend, 1).result(), two.submit(attend, 2).result())


@pytest.mark.usefixtures("anew")
def test_threads_that_need_one_kernel_at_once_compile_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, written, write = batch_of((9, 40)), [], attention_kernel.write
    monkeypatch.setattr(attention_kernel, "write", lambda code, *of: (written.append(of), write(code, *of)))
    q, k, v = draw(batch)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: fused_attention(q, k, v, batch, 0.25, ALL), range(8)))
    assert written == [(16, torch.float32, False, False)]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4, 1e15])
def test_scores_of_any_size(size: float) -> None:
    """Up to where all but one weight vanish; what a query's products make infinite is no number."""
    batch = batch_of((5, 200))
    q, k, v = draw(batch)
    assert_close(fused_attention(q * size, k, v, batch, 0.25, ALL), naive(q * size, k, v, batch), 2e-6 * size)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_is_seen_in_the_result(value: float, part: int, dtype: torch.dtype) -> None:
    batch = batch_of((40,))
    tensors = [x.to(dtype) for x in draw(batch)]
    tensors[part][7, :, 3] = value
    out = fused_attention(*tensors, batch, 0.25, ALL)
    assert not out[7].isfinite().all()


def test_bfloat16_is_rounded_to_the_nearest() -> None:
    """One token alone keeps its own value; of two values with equal weights the mean is rounded, ties to even."""
    value = torch.randn(1, 4, 16).bfloat16()
    assert torch.equal(fused_attention(value, value, value, batch_of((1,)), 0.25, ALL), value.flatten(1))
    zero, pair = torch.zeros(2, 4, 16).bfloat16(), torch.randn(2, 4, 16).bfloat16()
    mean = (pair.float().mean(0, keepdim=True)).bfloat16().flatten(1)
    assert torch.equal(fused_attention(zero, zero, pair, batch_of((2,)), 0.25, ALL), mean.expand(2, -1))


def test_exp2_is_within_two_units_in_the_last_place() -> None:
    """A lone key's weight is 2⁰; with two keys the second's weight shows 2ˣ: value (0, 1) gives 2ˣ / (1 + 2ˣ)."""
    x = torch.linspace(-20, 0, 4001, dtype=torch.float64)
    batch = batch_of((2,) * len(x))
    q, k, v = (torch.zeros(2 * len(x), 1, 16) for _ in range(3))
    q[:, 0, 0], k[1::2, 0, 0], v[1::2] = 1.0, x.float(), 1.0
    ours = fused_attention(q, k, v, batch, float(np.log(2)), ALL)[::2, 0].double()
    weight = 2 ** x.float().double()
    expected = weight / (1 + weight)
    assert ((ours - expected) / expected).abs().max() < 6e-7
