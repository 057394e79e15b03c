"""Rows by compiled kernels: beside torch in float64, alone and among others, in vectors of any width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.nn import compiled_rows
from tercet.nn.activations import ACTIVATIONS
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.heads import Normalize
from tercet.nn.jit import code, layer_kernels, row_kernels
from tercet.nn.jit.code import vector_shape
from tercet.nn.norms import LayerNorm, RMSNorm

if vector_shape() is None:
    pytest.skip("this processor has no vectors that the kernels are for", allow_module_level=True)


def draw(rows: int, width: int, scale: float = 1.0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)) * scale + 0.3


@pytest.fixture(params=[(4, 32), (8, 16), (16, 32)], ids=lambda shape: f"{shape[0]} lanes")
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "vector_shape", lambda: request.param)
    kernels = [layer_kernels.rotate_kernel, layer_kernels.gate_kernel, row_kernels.rms_norm_kernel]
    for kernel in (row_kernels.layer_norm_kernel, row_kernels.unit_kernel, row_kernels.embed_kernel, *kernels):
        monkeypatch.setattr(kernel, "kept", {})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "width"), [(1, 32), (7, 64), (8, 384), (9, 768), (130, 1024)])
@pytest.mark.usefixtures("lanes")
def test_layer_norm(rows: int, width: int, bias: bool) -> None:
    x, weight, shift = draw(rows, width, 5.0), draw(2, width)[0], draw(3, width)[0] if bias else None
    ours = compiled_rows.layer_norm(x, weight, shift, 1e-5)
    exact = F.layer_norm(x.double(), (width,), weight.double(), None if shift is None else shift.double(), 1e-5)
    assert (ours - exact).abs().max() <= 4e-6


@pytest.mark.parametrize("shape", [(9, 384), (5, 4, 64), (5, 1, 32)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.usefixtures("lanes")
def test_rms_norm(shape: tuple[int, ...], offset: float) -> None:
    """Of heads as they lie beside values too."""
    x = draw(shape[0], 6 * shape[-1], 5.0).view(shape[0], 6, shape[-1])
    x = x[:, 0].contiguous() if len(shape) == 2 else x[:, 1 : 1 + shape[1]]
    norm = RMSNorm(shape[-1], 1e-6, offset)
    norm.weight.copy_(draw(2, shape[-1])[0])
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * (norm.weight.double() + offset)
    assert norm(x).shape == x.shape and (norm(x) - exact).abs().max() <= 4e-6


@pytest.mark.usefixtures("lanes")
def test_unit_rows() -> None:
    x = draw(21, 96)
    x[4], x[5] = 0, 1e-14
    ours = compiled_rows.unit(x, 1e-12)
    assert (ours - F.normalize(x.double(), dim=-1)).abs().max() <= 1e-6
    assert not ours[4].any()


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    x, norm = draw(40, 64), LayerNorm(64)
    x[3, 5] = float("nan")
    for compute in (norm, Normalize()):
        whole = compute(x)
        assert whole.isfinite().all(1).logical_not().nonzero().flatten().tolist() == [3]
        for row in (0, 8, 39):
            assert torch.equal(compute(x[row : row + 1]), whole[row : row + 1])


@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.usefixtures("lanes")
def test_embeddings(placed: bool, typed: bool) -> None:
    words, places, kinds = draw(50, 64), draw(30, 64), draw(2, 64)
    ids, types = torch.arange(3, 23), torch.tensor([0, 1] * 10)
    halves = zip(ids.numpy().reshape(2, 10), types.numpy().reshape(2, 10), strict=True)
    batch = PackedBatch.of([TokenSequence(part, token_types=kind) for part, kind in halves])
    ours = compiled_rows.embed(batch.lookups, words, places if placed else None, kinds if typed else None)
    assert torch.equal(compiled_rows.embed(batch.lookups, None, places, None), places[batch.positions])
    expected = words[ids]
    if placed:
        expected = expected + places[batch.positions]
    if typed:
        expected = expected + kinds[types]
    assert torch.equal(ours, expected)


@pytest.mark.parametrize(("width", "turned"), [(32, 32), (64, 32), (96, 96)])
@pytest.mark.parametrize("viewed", [True, False])
@pytest.mark.usefixtures("lanes")
def test_rotations(width: int, turned: int, viewed: bool) -> None:
    """The bytes of torch's operations, for queries and keys as they lie beside values too."""
    x = draw(19, 5 * width).view(19, 5, width)
    x = x[:, 1:4] if viewed else x
    angles = draw(19, turned // 2).repeat(1, 2)[:, None]
    cos, sin = angles.cos(), angles.sin()
    left, right = x[..., : turned // 2], x[..., turned // 2 : turned]
    turned_x = x[..., :turned] * cos + torch.cat((-right, left), -1) * sin
    ours = compiled_rows.rotate(x, cos, sin)
    assert ours is not None and torch.equal(ours, torch.cat((turned_x, x[..., turned:]), -1))


@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("gate_first", [True, False])
@pytest.mark.usefixtures("lanes")
def test_gates(activation: str, gate_first: bool) -> None:
    x = draw(33, 192, 4.0)
    x[3] *= 1e4
    first, second = x.double().chunk(2, -1)
    gate, up = (first, second) if gate_first else (second, first)
    exact = ACTIVATIONS[activation](gate) * up
    ours = compiled_rows.gate(x, activation, gate_first)
    assert ours is not None and ((ours - exact).abs() <= 4e-7 * (1 + gate.abs()) * up.abs()).all()


def test_what_rotations_and_gates_are_not_for() -> None:
    x, cos = torch.ones(3, 2, 96), torch.ones(3, 1, 8)
    assert compiled_rows.rotate(x, cos, cos) is None
    assert compiled_rows.rotate(torch.ones(3, 2, 33), torch.ones(3, 1, 32), torch.ones(3, 1, 32)) is None
    assert compiled_rows.gate(torch.ones(3, 192), "tanh", True) is None
    assert compiled_rows.gate(torch.ones(3, 66), "gelu", True) is None
    assert compiled_rows.gate(torch.ones(3, 192, dtype=torch.bfloat16), "gelu", True) is None


@pytest.mark.parametrize(
    ("x", "fits"),
    [
        (torch.ones(3, 64), True),
        (torch.ones(3, 65), False),
        (torch.ones(64), False),
        (torch.ones(3, 64, dtype=torch.bfloat16), False),
        (torch.ones(3, 64, device="meta"), False),
    ],
)
def test_what_fits(x: Tensor, fits: bool) -> None:
    assert compiled_rows.fuses(x) == fits


def test_rows_that_fill_no_vector_go_by_torch() -> None:
    x: Any = draw(5, 65)
    norm = LayerNorm(65)
    assert torch.equal(norm(x), F.layer_norm(x, (65,), norm.weight, norm.bias, norm.eps))
    assert torch.equal(Normalize()(x), F.normalize(x, dim=-1))
