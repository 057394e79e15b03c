"""Products in int8 against the same rounding written out, and what that rounding costs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nn.test_attention import batch_of
from tercet.nn.attention import attention
from tercet.nn.int8 import Int8Weight, has_int8
from tercet.nn.int8_tiles import Int8TileWeight
from tercet.nn.jit import code, tiles
from tercet.nn.jit.rounding import finishing, rounding
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.layers import SelfAttention
from tercet.nn.linear import Linear, kernel_name, layout_of, prepare, rounding_saves
from tercet.nn.packed import PackedWeight

pytestmark = pytest.mark.skipif(not has_int8(), reason="this processor does not multiply int8")
KINDS = [Int8Weight, Int8TileWeight] if has_tiles() else [Int8Weight]

ACTIVATIONS = {None: lambda x: x, "gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded_rows(x: Tensor) -> Tensor:
    """Return each row on 256 even steps from its second least to its second greatest number, the two beyond as is."""
    x = x.double()
    low, high = (x.sort(1).values[:, at][:, None] for at in (1, -2))
    step = (high - low).clamp(min=1e-30) / 255
    inside = x.clamp(low, high)
    return ((inside - low) / step).round() * step + low + (x - inside)


def rounded_weights(weight: Tensor) -> Tensor:
    step = weight.double().abs().amax(1, keepdim=True) / 127
    return (weight.double() / step).round() * step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 70])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("added", [False, True])
def test_products_of_rounded_numbers(kind: type[PackedWeight], rows: int, activation: str | None, added: bool) -> None:
    x, weight, bias = draw(rows, 64), draw(48, 64, seed=1) / 8, draw(48, seed=2)
    x[0, 5], x[-1, 63] = 20.0, -9.0  # numbers far from the rest, as layer norms leave them
    residual = draw(rows, 48, seed=3) if added else None
    ours = kind(weight).multiply(x, bias, activation, residual)
    expected = ACTIVATIONS[activation](F.linear(rounded_rows(x), rounded_weights(weight), bias.double()))
    expected = expected if residual is None else expected + residual
    # A number midway between two steps may be rounded either way: a step's product with a weight, at most.
    assert (ours - expected).abs().max() <= 2e-5 + 6 / 255 * 0.5
    assert (ours - expected).abs().median() <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outlier", [0.0, 30.0])
def test_what_rounding_costs(kind: type[PackedWeight], outlier: float) -> None:
    x, weight = draw(200, 384), draw(1536, 384, seed=1) / 20
    x[:, 100] += outlier
    ours = kind(weight).multiply(x, None, None, None)
    assert torch.cosine_similarity(ours, F.linear(x, weight)).min() >= 0.9998


def test_a_row_comes_out_the_same_among_any_number_of_others() -> None:
    x, weight = draw(70, 64), Int8Weight(draw(48, 64, seed=1))
    together = weight.multiply(x, None, "gelu", None)
    for rows in (2, 5, 33):
        assert torch.equal(together[:rows], weight.multiply(x[:rows], None, "gelu", None))
    assert torch.equal(together[9:10], linear_of(draw(48, 64, seed=1))(x[9:10], activation="gelu"))


@pytest.mark.skipif(not has_tiles(), reason="this processor has no tiles of int8")
@pytest.mark.parametrize("width", [32, 48, 70, 200])
def test_tiles_give_the_same_however_many_rows_there_are(width: int) -> None:
    x, bias, residual = draw(1050, 192), draw(width, seed=2), draw(1050, width, seed=3)
    weight = Int8TileWeight(draw(width, 192, seed=1))
    together = weight.multiply(x, bias, "gelu", residual)
    for rows in (1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 65, 511, 512, 513, 528, 529, 1050):
        assert torch.equal(weight.multiply(x[:rows], bias, "gelu", residual[:rows]), together[:rows]), rows
    if width % 16 == 0:
        library = Int8Weight(draw(width, 192, seed=1)).multiply(x, bias, "gelu", residual)
        assert torch.allclose(together, library, rtol=0, atol=1e-6)


def test_without_tiles_none_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "has_tiles", lambda: False)
    with pytest.raises(RuntimeError, match="no tiles"):
        Int8TileWeight(torch.eye(64))


def linear_of(weight: Tensor) -> Linear:
    product = Linear(*weight.T.shape, bias=False)
    product.weight = torch.nn.Parameter(weight, requires_grad=False)
    prepare(product, dtype=torch.int8)
    return product


@pytest.mark.parametrize("lanes,registers", [(4, 32), (8, 16)])
def test_narrower_vectors_agree(lanes: int, registers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, residual = draw(9, 64), Int8Weight(draw(48, 64, seed=1)), draw(9, 48, seed=2)
    own = weight.multiply(x, None, "gelu", residual)
    monkeypatch.setattr(code, "vector_shape", lambda: (lanes, registers))
    for kernel in (rounding, finishing):
        monkeypatch.setattr(kernel, "kept", {})
    assert torch.equal(own, weight.multiply(x, None, "gelu", residual))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_equal_numbers_and_a_weight_of_zeros(kind: type[PackedWeight]) -> None:
    weight = draw(48, 64, seed=1)
    weight[3] = 0
    x = torch.full((2, 64), 0.75)  # which makes no steps
    out = kind(weight).multiply(x, None, None, None)
    assert (out - F.linear(x.double(), rounded_weights(weight).nan_to_num(0))).abs().max() < 1e-5
    assert not out[:, 3].any()


def test_attention_is_as_coarse_as_the_products_that_it_reads() -> None:
    net, batch, x = SelfAttention(64, 2), batch_of((9, 40)), draw(49, 64)
    for part in (net.qkv, net.out):
        torch.nn.init.normal_(part.weight)
        torch.nn.init.zeros_(part.bias)
    prepare(net, dtype=torch.int8)
    coarse, exact = (net.out(attention(*net.project(x), batch, coarse=coarse)) for coarse in (True, False))
    assert torch.equal(net(x, batch), coarse)
    assert torch.equal(coarse, exact) is not has_tiles()


def test_which_products_become_int8() -> None:
    net = torch.nn.Sequential(Linear(64, 48), Linear(48, 50))
    for part in net:
        torch.nn.init.normal_(part.weight)
        torch.nn.init.zeros_(part.bias)
    assert not Int8Weight.fits(net[1].weight)
    assert rounding_saves(net, torch.int8) == 2 * 64 * 48
    prepare(net, dtype=torch.int8)
    assert layout_of(net[0]) is KINDS[-1] and layout_of(net[1]) not in KINDS
    assert [part.coarse for part in net] == [True, False]
    assert kernel_name(torch.device("cpu"), torch.int8) == KINDS[-1].name
