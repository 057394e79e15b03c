"""Products by every kernel against `F.linear`."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tercet.nn import packed as packed_module
from tercet.nn.activations import ACTIVATIONS
from tercet.nn.by_rows import RowWeight
from tercet.nn.by_tiles import TileWeight
from tercet.nn.linear import Linear, _by_cublas, even_rows, kernel_name, layout_of, prepare
from tercet.nn.packed import OneDnnWeight, PackedWeight, packing, packings

# rows, in, out: fewer rows and more than oneDNN's layout is for and our kernel takes at once; short and long sums;
# columns and rows of the weight that fill no vector or panel, and too few of them.
SHAPES = [(1, 16, 32), (3, 33, 7), (3, 33, 70), (13, 136, 33), (17, 384, 1536), (600, 96, 48), (513, 136, 33)]
KINDS: list[tuple[type[PackedWeight], torch.dtype]] = [
    (RowWeight, torch.float32),
    (TileWeight, torch.float32),
    (OneDnnWeight, torch.float32),
    (OneDnnWeight, torch.bfloat16),
]
BOUND = {torch.float32: 4e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def choose(packed: type[PackedWeight] | None, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Have weights packed so from now on; skip where that cannot be."""
    if packed is not None and not packed_module.runs(packed, dtype):
        pytest.skip(f"{packed.name} does not multiply {dtype} here")
    monkeypatch.setattr(packed_module, "packings", lambda dtype: () if packed is None else (packed,))


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
@pytest.mark.parametrize(("packed", "dtype"), [*KINDS, *((None, dtype) for dtype in BOUND)])
def test_equals_the_formula(
    shape: tuple[int, int, int],
    bias: bool,
    with_residual: bool,
    packed: type[PackedWeight] | None,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(packed, monkeypatch, dtype)
    layer, x, residual = draw(*shape, bias, dtype)
    assert layer.weight is not None
    weight, added = layer.weight.double(), layer.bias.double() if layer.bias is not None else None
    layer.pack()
    assert (layer.weight is None) == (packed is not None and packed.fits(weight))
    for name, activation in ACTIVATIONS.items():
        before = x.clone(), residual.clone()
        ours = layer(x, activation=name, residual=residual if with_residual else None)
        expected = activation(F.linear(x.double(), weight, added)) + (residual.double() if with_residual else 0)
        assert ours.shape == shape[::2] and ours.dtype == dtype
        assert ((ours.double() - expected).abs() <= BOUND[dtype] * expected.abs().clamp(min=1)).all(), name
        assert torch.equal(x, before[0]) and torch.equal(residual, before[1]), f"{name} wrote into its input"


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_what_cublas_fuses_is_the_same(bias: bool, with_residual: bool) -> None:
    """Its operators run on a CPU too, where GELU is exact."""
    layer, x, residual = draw(6, 32, 16, bias, torch.float32)
    assert layer.weight is not None
    for name in (None, "relu", "gelu", "silu"):
        added = residual.clone() if with_residual else None
        expected = ACTIVATIONS[name](F.linear(x, layer.weight, layer.bias)) + (residual if with_residual else 0)
        assert torch.allclose(_by_cublas(x, layer.weight, layer.bias, name, added), expected, atol=4e-6), name
        assert added is None or torch.equal(added, residual)


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
        chosen = packing(dtype)
        assert kernel_name(cpu, dtype) == (chosen.name if chosen else "torch")
    assert packing(torch.float16) is None and packing(torch.float64) is None
    assert kernel_name(torch.device("cuda"), torch.bfloat16) == "cublas"


@pytest.mark.parametrize(
    ("lanes", "tiles", "lacking", "expected"),
    [
        (16, True, None, [TileWeight, RowWeight, OneDnnWeight]),
        (16, False, None, [RowWeight, OneDnnWeight]),
        (8, False, None, [RowWeight, OneDnnWeight]),
        (16, False, OneDnnWeight, [RowWeight]),
        (4, False, None, [OneDnnWeight]),
        (None, False, None, [OneDnnWeight]),
    ],
)
def test_the_processor_decides_what_multiplies(
    lanes: int | None,
    tiles: bool,
    lacking: type[PackedWeight] | None,
    expected: list[type[PackedWeight]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_module, "vector_shape", lambda: lanes and (lanes, 16))
    monkeypatch.setattr(packed_module, "has_tiles", lambda: tiles)
    monkeypatch.setattr(packed_module, "runs", lambda packed, dtype: packed is not lacking)
    assert list(packings.__wrapped__(torch.float32)) == expected


def test_row_counts_are_few_and_at_most_an_eighth_too_many() -> None:
    counts = {even_rows(rows, OneDnnWeight) for rows in range(1, 2049)}
    assert len(counts) <= 60
    for rows in (1, 8, 9, 100, 128, 129, 1000, 1025, 2047, 2048, 5000):
        given = even_rows(rows, OneDnnWeight)
        assert rows <= given <= max(rows + 3, rows * (1 + 0.5**OneDnnWeight.fineness))
    assert even_rows(1001, RowWeight) == 1001


def test_the_layout_of_products_is_that_of_the_first_that_is_packed() -> None:
    layers = nn.Sequential(nn.Identity(), draw(2, 64, 64, True, torch.float32)[0])
    assert layout_of(layers) is None
    prepare(layers)
    assert layout_of(layers) is packing(torch.float32)


@pytest.mark.parametrize(("packed", "dtype"), KINDS)
@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("residual", [False, True])
def test_a_row_comes_out_the_same_among_any_number_of_rows(
    packed: type[PackedWeight],
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    residual: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(packed, monkeypatch, dtype)
    _, width, out = shape
    layer, x, _ = draw(300, width, out, True, dtype)
    assert layer.weight is not None
    if not packed.fits(layer.weight):
        pytest.skip(f"{packed.name} holds no weight so small")
    prepare(layer, torch.get_num_threads())
    added = torch.randn(300, out).to(dtype) if residual else None
    with torch.inference_mode():
        whole = layer(x, residual=added)
        for first, last in ((7, 8), (5, 7), (20, 57), (40, 300)):
            rows = slice(first, last)
            part = layer(x[rows].contiguous(), residual=None if added is None else added[rows].contiguous())
            assert torch.equal(part, whole[rows])


@pytest.mark.parametrize(("packed", "dtype"), [*KINDS, (None, torch.float32)])
def test_a_weight_may_lie_in_parts(
    packed: type[PackedWeight] | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(packed, monkeypatch, dtype)
    layer, x, _ = draw(6, 64, 96, True, dtype)
    parted = copy.deepcopy(layer)
    assert layer.weight is not None
    parted.take([layer.weight[:64], layer.weight[64:]])
    prepare(layer)
    prepare(parted)
    assert torch.equal(layer(x), parted(x))
