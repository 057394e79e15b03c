"""Disentangled attention: scores that relate content to relative position; He et al. 2021, arXiv:2006.03654."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tercet.nn.attention import Bias
from tercet.nn.layers import SelfAttention


class Distances(NamedTuple):
    """The relative positions that occur in a batch, and no others.

    Attributes:
        vectors: (W, H), one per bucket of distances, ascending.
        rows: (2 L − 1,) int64, the rows of `vectors` for distances −(L − 1) … L − 1, L the longest length.
    """

    vectors: Tensor
    rows: Tensor


class DisentangledAttention(SelfAttention):
    """Content to content, content to position and position to content, the positions through content's projections."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__(hidden, heads, scale=(3 * hidden // heads) ** -0.5)

    def bias(self, distances: Distances) -> Bias:
        """Return what this layer adds to its scores: q · key(distance) + k · query(distance), scaled."""
        queries, keys, _ = self.project(distances.vectors)
        scale = self.scale or 1.0
        ascending = (queries * scale)[distances.rows].permute(1, 2, 0)  # (N, d, 2 L − 1)
        descending = (keys * scale)[distances.rows.flip(0)].permute(1, 2, 0)

        def added(_: object, q: Tensor, k: Tensor) -> Tensor:
            return by_offset(q, descending, k.shape[2]) + by_offset(k, ascending, q.shape[2]).mT

        return added


def by_offset(x: Tensor, vectors: Tensor, columns: int) -> Tensor:
    """Return x[…, r, :] · vectors[:, c − r] for each row r and column c: (n, N, R, C).

    The products with all offsets lie in memory such that a stride of one less than their row shifts every row by one
    (Dai et al. 2019, arXiv:1901.02860, appendix B), so nothing is gathered.

    Args:
        x: (n, N, R, d).
        vectors: (N, d, 2 L − 1), by offset −(L − 1) … L − 1, where L ≥ R and L ≥ C.
        columns: C.
    """
    n, heads, rows, dims = x.shape
    zero = vectors.shape[2] // 2
    near = vectors[:, :, zero - rows + 1 : zero + columns]  # (N, d, R + C − 1)
    products = torch.bmm(x.transpose(0, 1).reshape(heads, n * rows, dims), near)
    width = near.shape[2]
    strides = (rows * width, n * rows * width, width - 1, 1)
    return products.as_strided((n, heads, rows, columns), strides, rows - 1)


def bucket(distance: Tensor, buckets: int, farthest: int) -> Tensor:
    """Return signed buckets of distances: exact up to half of `buckets`, then logarithmic up to `farthest`."""
    middle = buckets // 2
    size = distance.abs().clamp(min=middle)
    steps = torch.log(size / middle) / torch.log(torch.tensor((farthest - 1) / middle)) * (middle - 1)
    far = (steps.ceil() + middle) * distance.sign()
    return torch.where(distance.abs() <= middle, distance, far.long())
