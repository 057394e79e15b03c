"""Multivector head: token states in, one vector per token out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.heads import Head
from tercet.nn.transfer import to_host


class MultiVectorHead(Head):
    """Projected and normalised token states; Khattab & Zaharia 2020, arXiv:2004.12832.

    Args:
        steps: what each state goes through, in float32.
        drop_first: whether the first token's vector is left out (BGE-M3).
    """

    def __init__(self, steps: Sequence[nn.Module], *, drop_first: bool = False) -> None:
        super().__init__()
        self.steps = nn.Sequential(*steps)
        self.drop_first = drop_first

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (T, D) float32."""
        out: Tensor = self.steps(hidden.float())
        return out

    def rows(self, output: Tensor, batch: PackedBatch) -> Sequence[NDArray[np.float32]]:
        """Return (n, D) per sequence, n its tokens that are kept, in order."""
        parts = np.split(to_host(output), np.cumsum(batch.lengths)[:-1])
        return [self._kept(s, part) for s, part in zip(batch.sequences, parts, strict=True)]

    def _kept(self, sequence: TokenSequence, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        kept = sequence.kept
        if self.drop_first:
            vectors, kept = vectors[1:], None if kept is None else kept[1:]
        return vectors if kept is None else vectors[kept]
