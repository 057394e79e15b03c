"""The packed product against `F.linear`."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tercet.nn.activations import ACTIVATIONS
from tercet.nn.linear import Linear, can_pack, compiled_rows, is_packed, kernel_name, prepare

SHAPES = [(1, 16, 16), (3, 33, 7), (17, 384, 1536), (600, 96, 48)]  # rows, in, out: fewer and more than _PACKED_ROWS
BOUND = {torch.float32: 4e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def draw(rows: int, width: int, out: int, bias: bool, dtype: torch.dtype) -> tuple[Linear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * 7 + width)
    layer = Linear(width, out, bias)
    assert layer.weight is not None
    layer.weight.copy_(torch.randn(out, width, generator=generator) / width**0.5)
    if layer.bias is not None:
        layer.bias.copy_(torch.randn(out, generator=generator))
    x = torch.randn(rows, width, generator=generator)
    residual = torch.randn(rows, out, generator=generator)
    return layer.to(dtype), x.to(dtype), residual.to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("dtype", BOUND, ids=str)
def test_equals_the_formula(
    shape: tuple[int, int, int], bias: bool, with_residual: bool, prepared: bool, dtype: torch.dtype
) -> None:
    layer, x, residual = draw(*shape, bias, dtype)
    assert layer.weight is not None
    weight, added = layer.weight.double(), layer.bias.double() if layer.bias is not None else None
    if prepared:
        layer.prepare()
    for name, activation in ACTIVATIONS.items():
        before = x.clone(), residual.clone()
        ours = layer(x, activation=name, residual=residual if with_residual else None)
        expected = activation(F.linear(x.double(), weight, added)) + (residual.double() if with_residual else 0)
        assert ours.shape == shape[::2] and ours.dtype == dtype
        assert ((ours.double() - expected).abs() <= BOUND[dtype] * expected.abs().clamp(min=1)).all(), name
        assert torch.equal(x, before[0]) and torch.equal(residual, before[1]), f"{name} wrote into its input"


def test_reads_views_and_more_dimensions() -> None:
    layer, x, _ = draw(6, 32, 16, True, torch.float32)
    wide = torch.cat((x, x * 2), -1)
    expected = layer(x)
    prepare(layer)
    assert torch.allclose(layer(wide[:, :32]), expected, atol=4e-6)
    assert torch.allclose(layer(x.T.contiguous().T), expected, atol=4e-6)
    assert torch.allclose(layer(x.view(2, 3, 32)), expected.view(2, 3, 16), atol=4e-6)


def test_prepare_reaches_every_layer_and_may_be_repeated() -> None:
    layers = nn.Sequential(draw(2, 8, 8, True, torch.float32)[0], nn.Sequential(draw(3, 8, 8, False, torch.float32)[0]))
    x = torch.randn(4, 8)
    expected = copy.deepcopy(layers)(x)
    for cores in (1, 3):
        prepare(layers, cores)
        assert torch.allclose(layers(x), expected, atol=4e-6)


def test_the_kernel_is_named_by_what_can_run() -> None:
    cpu = torch.device("cpu")
    for dtype in BOUND:
        assert kernel_name(cpu, dtype) == ("onednn-packed" if can_pack(dtype) else "torch")
    assert not can_pack(torch.float16) and not can_pack(torch.float64)
    assert kernel_name(torch.device("cuda"), torch.bfloat16) == "cublas"


def test_a_prepared_layer_holds_one_copy_of_its_weight() -> None:
    layer, _, _ = draw(2, 64, 64, True, torch.float32)
    layer.prepare()
    assert (layer.weight is None) == can_pack(torch.float32)


def test_row_counts_are_few_and_at_most_an_eighth_too_many() -> None:
    counts = {compiled_rows(rows) for rows in range(1, 2049)}
    assert len(counts) <= 60
    for rows in (1, 8, 9, 100, 128, 129, 1000, 1025, 2047, 2048, 5000):
        given = compiled_rows(rows)
        assert rows <= given <= max(rows + 3, rows * 1.125)
    assert not is_packed(Linear(4, 4))


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("residual", [False, True])
def test_a_row_comes_out_the_same_among_any_number_of_rows(shape: tuple[int, int, int], residual: bool) -> None:
    _, width, out = shape
    layer, x, _ = draw(300, width, out, True, torch.float32)
    layer.prepare()
    added = torch.randn(300, out) if residual else None
    with torch.inference_mode():
        whole = layer(x, residual=added)
        for first, last in ((7, 8), (5, 7), (20, 57), (40, 300)):
            rows = slice(first, last)
            part = layer(x[rows].contiguous(), residual=None if added is None else added[rows].contiguous())
            assert torch.equal(part, whole[rows])
