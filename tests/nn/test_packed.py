"""What holds of products by kernels of our own, whatever type the weight is in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tercet.nn.by_rows import RowWeight
from tercet.nn.by_tiles import TileWeight
from tercet.nn.int8 import Int8Weight, has_int8
from tercet.nn.int8_tiles import Int8TileWeight
from tercet.nn.int16 import Int16Weight
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.pairs import has_pairs
from tercet.nn.jit.tiles import has_tiles
from tercet.nn.packed import PackedWeight, batch_tokens
from tercet.nn.team import compute_with

WEIGHT = torch.randn(48, 64, generator=torch.Generator().manual_seed(1))
RUNS = {
    RowWeight: vector_shape() is not None,
    TileWeight: has_tiles(),
    Int8Weight: has_int8(),
    Int8TileWeight: has_tiles(),
    Int16Weight: has_pairs(),
}


@pytest.fixture(params=RUNS, ids=lambda kind: kind.name)
def weight(request: pytest.FixtureRequest) -> PackedWeight:
    if not RUNS[request.param]:
        pytest.skip(f"{request.param.name} does not run on this processor")
    made: PackedWeight = request.param(WEIGHT)
    return made


def draw(rows: int) -> Tensor:
    return torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows))


def test_batches_are_longer_in_bfloat16() -> None:
    assert batch_tokens(torch.bfloat16) == 2_048
    assert {batch_tokens(dtype) for dtype in (torch.float32, torch.float16, torch.int8)} == {1_024}


def test_cores_change_nothing(weight: PackedWeight) -> None:
    x, before, results = draw(700), torch.get_num_threads(), []
    try:
        for cores in (1, 2):
            compute_with(cores)
            results.append(weight.multiply(x, None, "gelu", None))
    finally:
        compute_with(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_seen_in_its_row_alone(weight: PackedWeight, value: float) -> None:
    x = draw(5)
    x[2, 3] = value
    out = weight.multiply(x, None, None, None)
    assert out.isfinite().all(1).tolist() == [True, True, False, True, True]
