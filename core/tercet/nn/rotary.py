"""Rotary positions: each token's queries and keys turn by angles that grow with its position.

Rotate-half layout; Su et al. 2021, arXiv:2104.09864. Frequencies are float32 on the host, computed by the same
operations as the published models: at position 8,000 one unit in their last place is already half a thousandth of a
radian. They name their device because modules are built on the meta device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tercet.nn import compiled_rows, fused_rows
from tercet.nn.batch import PackedBatch

_TABLED = 2_048  # positions that a table of angles has at least: more than a program's batch has tokens

Angles = tuple[Tensor, Tensor]  # cosines and sines, each (T, 1, d)


class Rotary:
    """Angles that are proportional to the position.

    Args:
        frequencies: (d / 2,) radians per position.
        magnitude: multiplies queries and keys (YaRN's attention factor).
    """

    def __init__(self, frequencies: Tensor, magnitude: float = 1.0) -> None:
        self.frequencies, self.magnitude = frequencies, magnitude
        self._tables: list[Angles] = []  # each longer than the one before, which a program may still read

    def angles(self, batch: PackedBatch, dtype: torch.dtype) -> Angles:
        """Return cosines and sines for each packed token, computed in float32; share them across layers."""
        per_token = self.per_token(batch)
        compiles = per_token.device.type == "cpu" and compiled_rows.fills(2 * len(self.frequencies))
        if compiles and dtype == torch.float32 and per_token is self.frequencies:
            cos, sin = (
                compiled_rows.embed(batch.lookups, None, table, None)[:, None]
                for table in self._table(batch.lookups.largest_position + 1)
            )
            return cos, sin
        cos, sin = self._of(batch.positions, per_token)
        return cos[:, None].to(dtype), sin[:, None].to(dtype)

    def _of(self, positions: Tensor, frequencies: Tensor) -> Angles:
        """Return cosines and sines, (T, d) each."""
        turns = positions.float()[:, None] * frequencies
        turns = torch.cat((turns, turns), -1)
        return turns.cos() * self.magnitude, turns.sin() * self.magnitude

    def _table(self, rows: int) -> Angles:
        """Return cosines and sines of positions from 0 on, at least so many."""
        known = len(self._tables[-1][0]) if self._tables else 0
        if known < rows:
            longer = max(_TABLED, 1 << (rows - 1).bit_length())
            self._tables.append(self._of(torch.arange(longer), self.frequencies))
        return self._tables[-1]

    def per_token(self, batch: PackedBatch) -> Tensor:
        """Return frequencies on the batch's device that broadcast to (T, d / 2)."""
        if self.frequencies.device != batch.positions.device:
            self.frequencies = self.frequencies.to(batch.positions.device)
        return self.frequencies


class DynamicRotary(Rotary):
    """Angles whose base grows with the length of a text beyond `limit` (dynamic NTK).

    The published models take the longest text of a batch; here each text has its own base, so that it gets the same
    vector in any batch.
    """

    def __init__(self, dim: int, theta: float, factor: float, limit: int) -> None:
        super().__init__(frequencies(dim, theta))
        self.dim, self.theta, self.factor, self.limit = dim, theta, factor, limit

    def per_token(self, batch: PackedBatch) -> Tensor:
        """Return frequencies on the batch's device that broadcast to (T, d / 2)."""
        if batch.max_seqlen <= self.limit:
            return super().per_token(batch)
        rows = torch.stack([self.frequencies_of(length) for length in batch.lengths])
        return rows.to(batch.positions.device)[batch.sequence_index]

    def frequencies_of(self, length: int) -> Tensor:
        """Return the (d / 2,) frequencies of a text of `length` tokens."""
        growth = self.factor * max(length, self.limit) / self.limit - (self.factor - 1)
        return frequencies(self.dim, self.theta * growth ** (self.dim / (self.dim - 2)))


def frequencies(dim: int, theta: float) -> Tensor:
    """Return theta^(−2i/dim) for i < dim / 2."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    return torch.pow(theta, exponents).reciprocal()


def ntk(dim: int, theta: float, factor: float, mixed_b: float | None = None) -> Tensor:
    """Return frequencies for `factor` times the trained length, fixed or mixed NTK as GTE scales them.

    Su 2023, https://kexue.fm/archives/9706, equations 6 and 12–13.
    """
    if mixed_b is None:
        return frequencies(dim, theta * factor).div(factor ** (2 / dim))
    ordinal = torch.arange(1, dim // 2 + 1, dtype=torch.float32, device="cpu")
    slope = math.log(factor) / (dim / 2) ** mixed_b
    return torch.exp(-slope * ordinal**mixed_b) * frequencies(dim, theta)


def yarn(dim: int, theta: float, factor: float, trained: int, fast: float, slow: float, whole: bool = True) -> Tensor:
    """Return frequencies for `factor` times the `trained` length: slow turns stretched, fast ones kept.

    Peng et al. 2023, arXiv:2309.00071.

    Args:
        dim: rotated dimensions. theta: base.
        factor: by how much the length grows.
        trained: positions seen in training.
        fast, slow: turns over the trained length above which a frequency is kept, and below which it is stretched.
        whole: whether the ramp between the two begins and ends on whole dimensions.
    """

    def dimension(turns: float) -> float:
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(fast), dimension(slow)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ordinal = torch.arange(dim // 2, dtype=torch.float32, device="cpu")
    stretched = ((ordinal - low) / max(high - low, 0.001)).clamp(0, 1)
    kept = frequencies(dim, theta)
    return kept / factor * stretched + kept * (1 - stretched)


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Return x (T, N, d) with its first dimensions rotated by the angles of each token."""
    cos, sin = angles
    if fused_rows.fuses(x):
        return fused_rows.rotate(x, cos, sin)
    if (rotated := compiled_rows.rotate(x, cos, sin)) is not None:
        return rotated
    dim = cos.shape[-1]
    turned, rest = x[..., :dim], x[..., dim:]
    left, right = turned.chunk(2, -1)
    turned = turned * cos + torch.cat((-right, left), -1) * sin
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned
