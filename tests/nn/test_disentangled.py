"""Relative positions: the shifted products and the buckets, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from tercet.nn.disentangled import bucket, by_offset


@pytest.mark.parametrize(("rows", "columns", "longest"), [(1, 1, 1), (5, 5, 5), (5, 3, 9), (3, 5, 5), (1, 4, 6)])
def test_by_offset_is_the_product_with_each_offsets_vector(rows: int, columns: int, longest: int) -> None:
    generator = torch.Generator().manual_seed(rows * 10 + columns)
    x = torch.randn(2, 3, rows, 8, generator=generator)
    vectors = torch.randn(3, 8, 2 * longest - 1, generator=generator)
    ours = by_offset(x, vectors, columns)
    assert ours.shape == (2, 3, rows, columns)
    for r in range(rows):
        for c in range(columns):
            expected = torch.einsum("nhd,hd->nh", x[:, :, r], vectors[:, :, c - r + longest - 1])
            assert torch.allclose(ours[:, :, r, c], expected, atol=1e-5)


@pytest.mark.parametrize(("buckets", "farthest"), [(16, 96), (256, 512)])
def test_buckets_are_exact_then_logarithmic(buckets: int, farthest: int) -> None:
    distances = torch.arange(-farthest + 1, farthest)
    found = bucket(distances, buckets, farthest)
    middle = buckets // 2
    near = distances.abs() <= middle
    assert torch.equal(found[near], distances[near])
    assert torch.equal(found, -found.flip(0))
    assert (found.diff() >= 0).all() and found.diff().max() == 1
    for distance in (middle + 1, farthest // 2 + 3):
        steps = math.log(distance / middle) / math.log((farthest - 1) / middle) * (middle - 1)
        assert found[distances == distance].item() == math.ceil(steps) + middle
    assert found[-1] in (buckets - 1, buckets)  # the last step is a whole number, give or take the last bit
