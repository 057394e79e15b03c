"""A bias on attention scores by the distance between query and key; Raffel et al. 2020, arXiv:1910.10683."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.nn.batch import Run

_SPARE = 64  # numbers past the largest distance, which queries beyond the last, to fill vectors, have read for them


@dataclass(frozen=True)
class DistanceBias:
    """What is added to scaled scores, as an `attention.Bias` too.

    Attributes:
        table: (N, 2 `longest` − 1 + spare) float32, one after the other for query − key from 1 − `longest` on.
        longest: what no sequence may be longer than.
    """

    table: Tensor
    longest: int
    _blocks: dict[int, Tensor] = field(default_factory=dict)  # by length, for as long as a forward pass lasts

    @classmethod
    def of(cls, biases: Tensor) -> DistanceBias:
        """Return it for (N, 2 `longest` − 1) biases."""
        return cls(F.pad(biases.float(), (0, _SPARE)).contiguous(), (biases.shape[1] + 1) // 2)

    def __call__(self, run: Run, queries: Tensor, keys: Tensor) -> Tensor:
        """Return (1, N, L, S), the biases of a run of sequences."""
        if run.length not in self._blocks:
            places = torch.arange(run.length, device=self.table.device)
            self._blocks[run.length] = self.table[:, places[:, None] - places + (self.longest - 1)][None]
        return self._blocks[run.length][..., : run.attended]
