"""Products in tiles: what `test_linear.py` does not ask of every kernel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tercet.nn.by_tiles import TileWeight
from tercet.nn.jit import tiles
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.packed import OneDnnWeight, runs

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="this processor has no tiles of bfloat16")
DEPTH = 416  # more columns than are multiplied at once, by a few


def draw(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@needs_tiles
@pytest.mark.parametrize("laid", [False, True])
@pytest.mark.parametrize("width", [32, 70, 200, 500])  # the last in more panels than sums are kept of
def test_rows_come_out_the_same_however_many_there_are(width: int, laid: bool) -> None:
    count = 2881  # of which the last block has one
    x, bias, residual = draw(count, DEPTH), draw(1, width, seed=2)[0], draw(count, width, seed=3)
    together = TileWeight(draw(width, DEPTH, seed=1)).multiply(x, bias, "gelu", residual)
    weight = TileWeight(draw(width, DEPTH, seed=1))
    if laid:
        weight.lay()
    for rows in (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65, 80, 319, 320, 321, 336, 337, 640, 641, 1050):
        assert torch.equal(weight.multiply(x[:rows], bias, "gelu", residual[:rows]), together[:rows]), rows
    for row in (7, 40, 320, 1049, 2880):
        one = slice(row, row + 1)
        assert torch.equal(weight.multiply(x[one], bias, "gelu", residual[one]), together[one])


@needs_tiles
@pytest.mark.parametrize("rows", [3, 40])
def test_no_bit_of_a_float32_is_lost(rows: int) -> None:
    numbers, one = draw(rows, 64) * 2.0 ** draw(rows, 64, seed=1).mul(20).round(), torch.eye(64)
    assert torch.equal(TileWeight(one).multiply(numbers, None, None, None), numbers)
    square = draw(64, 64) * 2.0 ** draw(64, 64, seed=1).mul(20).round()
    assert torch.equal(TileWeight(square).multiply(one[:rows], None, None, None), square.T[:rows])


@needs_tiles
@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("power", range(-149, -95, 6))
def test_the_least_numbers_lose_low_bits_alone(power: int, rows: int) -> None:
    numbers, one = draw(rows, 64).clamp(-2, 2) * 2.0**power, torch.eye(64)
    ours = TileWeight(one).multiply(numbers, None, None, None)
    assert ((ours - numbers).abs() <= 2.0**-125).all()
    square = draw(64, 64).clamp(-2, 2) * 2.0**power
    ours = TileWeight(square).multiply(one[:rows], None, None, None)
    assert ((ours - square.T[:rows]).abs() <= 2.0**-125).all()


@needs_tiles
@pytest.mark.parametrize("rows", [13, 50])
@pytest.mark.parametrize("depth", [64, 384, 1536])
def test_products_are_as_exact_as_in_float32(rows: int, depth: int) -> None:
    x, weight = draw(rows, depth), draw(96, depth, seed=1)
    wrong = (TileWeight(weight).multiply(x, None, None, None) - x.double() @ weight.double().T).abs()
    assert (wrong <= 2.0**-22 * (x.abs() @ weight.abs().T)).all()
    assert wrong.mean() <= (x @ weight.T - x.double() @ weight.double().T).abs().mean()


@needs_tiles
def test_threads_and_a_library_that_uses_tiles_too_disturb_nobody() -> None:
    if not runs(OneDnnWeight, torch.bfloat16):
        pytest.skip("oneDNN does not multiply bfloat16 here")
    x, ours, theirs = draw(40, 64), TileWeight(draw(96, 64, seed=1)), OneDnnWeight(draw(96, 64, seed=1).bfloat16())

    def both(_: int) -> tuple[Tensor, Tensor]:
        return ours.multiply(x, None, None, None), theirs.multiply(x.bfloat16(), None, None, None)

    first = both(0)
    with ThreadPoolExecutor(4) as threads:
        for pair in threads.map(both, range(200)):
            assert all(map(torch.equal, pair, first))


def test_without_tiles_none_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "has_tiles", lambda: False)
    with pytest.raises(RuntimeError, match="no tiles"):
        TileWeight(torch.eye(64))
    assert not runs(TileWeight, torch.float32)


def test_a_weight_whose_columns_fill_no_tile_does_not_fit() -> None:
    assert not TileWeight.fits(torch.ones(64, 48)) and not TileWeight.fits(torch.ones(16, 64))
    assert not has_tiles() or TileWeight.fits(torch.ones(32, 64))
