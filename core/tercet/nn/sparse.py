"""Lexical heads: token states in, weights of vocabulary entries out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Head, MaskedLM
from tercet.nn.linear import Linear
from tercet.nn.pooling import reduced
from tercet.nn.transfer import to_host
from tercet.types import SparseVector

# Saturations of a logit, each monotone, so that a maximum may be taken before.
SATURATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log1p_relu": lambda x: x.relu().log1p(),
    "log1p_log1p_relu": lambda x: x.relu().log1p().log1p(),
}

# Rows of logits held at a time: 31 MB with BERT's vocabulary; a GPU wants larger products, 250 MB in bfloat16.
_CHUNK_TOKENS, _GPU_CHUNK_TOKENS = 256, 4_096


class SpladeHead(Head):
    """Weights of all vocabulary entries from masked-language-model logits; Formal et al. 2021, arXiv:2109.10086.

    Args:
        masked_lm: token states to logits.
        pooling: "max" or "sum" over a text's tokens.
        activation: key of `SATURATIONS`.
    """

    def __init__(self, masked_lm: MaskedLM, pooling: str, activation: str) -> None:
        super().__init__()
        self.masked_lm = masked_lm
        self.pooling, self.activation = pooling, activation

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, V) float32, non-negative, mostly zero; logits are held for a few hundred tokens at a time."""
        transformed = self.masked_lm.transform(hidden)
        start = float("-inf") if self.pooling == "max" else 0.0
        out = torch.full((len(batch.lengths), self.masked_lm.decoder.out_features), start, device=hidden.device)
        for chunk in _chunks(batch.lengths, _GPU_CHUNK_TOKENS if hidden.is_cuda else _CHUNK_TOKENS):
            logits = self.masked_lm.decode(transformed[chunk.start : chunk.stop])
            self._add(out, logits, chunk, batch)
        return SATURATIONS[self.activation](out) if self.pooling == "max" else out

    def _add(self, out: Tensor, logits: Tensor, chunk: _Chunk, batch: PackedBatch) -> None:
        """Merge a chunk's (T', V) logits into the rows of its sequences."""
        if self.pooling == "sum":
            logits = SATURATIONS[self.activation](logits.float())
        if logits.is_cuda:
            self._add_at_once(out, logits, chunk, batch)
            return
        for sequence, part in zip(chunk.sequences, torch.split(logits, chunk.lengths), strict=True):
            row = out[sequence]
            if self.pooling == "max":
                torch.maximum(row, part.amax(0).float(), out=row)
            else:
                row.add_(part.sum(0))

    def _add_at_once(self, out: Tensor, logits: Tensor, chunk: _Chunk, batch: PackedBatch) -> None:
        """Do so for all sequences together, as a GPU wants it."""
        first, last = chunk.sequences[0], chunk.sequences[-1]
        offsets = (batch.cu_seqlens[first : last + 2] - chunk.start).clamp(0, len(logits))
        rows = out[first : last + 1]
        if self.pooling == "max":
            torch.maximum(rows, reduced(logits, offsets, "max").float(), out=rows)
        else:
            rows.add_(reduced(logits, offsets, "sum"))

    def rows(self, output: Tensor, batch: PackedBatch) -> Sequence[SparseVector]:
        """Return one sparse vector per sequence; only what is not zero is copied from the device."""
        where = output.nonzero()
        values = to_host(output[where[:, 0], where[:, 1]])
        rows, indices = to_host(where).T
        ends = np.searchsorted(rows, np.arange(1, len(output)))
        parts = zip(np.split(indices.astype(np.uint32), ends), np.split(values, ends), strict=True)
        return [SparseVector(*part) for part in parts]


class LexicalHead(Head):
    """BGE-M3's lexical weights, relu(w · h + b) for each token, the maximum per token id; arXiv:2402.03216.

    Args:
        hidden: H.
        dropped: token ids without a weight (special tokens).
    """

    def __init__(self, hidden: int, dropped: Sequence[int]) -> None:
        super().__init__()
        self.linear = Linear(hidden, 1)
        self.dropped = np.array(sorted(dropped), np.int64)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (T,) float32 weights of the tokens."""
        weights: Tensor = self.linear(hidden.float()).squeeze(-1)
        return weights.relu()

    def rows(self, output: Tensor, batch: PackedBatch) -> Sequence[SparseVector]:
        """Return one sparse vector per sequence."""
        parts = np.split(to_host(output), np.cumsum(batch.lengths)[:-1])
        return [self._row(s.input_ids, weights) for s, weights in zip(batch.sequences, parts, strict=True)]

    def _row(self, ids: NDArray[np.int64], weights: NDArray[np.float32]) -> SparseVector:
        unique, places = np.unique(ids, return_inverse=True)
        largest = np.zeros(len(unique), np.float32)
        np.maximum.at(largest, places, weights)
        kept = (largest != 0) & ~np.isin(unique, self.dropped)
        return SparseVector(unique[kept].astype(np.uint32), largest[kept])


class _Chunk(NamedTuple):
    """Packed tokens [start:stop], `lengths[i]` of them of the sequence `sequences[i]`."""

    start: int
    stop: int
    sequences: list[int]
    lengths: list[int]


def _chunks(lengths: Sequence[int], size: int) -> Iterator[_Chunk]:
    """Yield the packed tokens in chunks of about `size`, each of neighbouring sequences.

    A text is cut at the same places in every batch, so that a sum over its tokens has the same rounding.
    """
    start = 0
    sequences: list[int] = []
    taken: list[int] = []
    for sequence, length in enumerate(lengths):
        for first in range(0, length, size):
            part = min(size, length - first)
            if sum(taken) + part > size:
                yield _Chunk(start, start + sum(taken), sequences, taken)
                start, sequences, taken = start + sum(taken), [], []
            sequences.append(sequence)
            taken.append(part)
    yield _Chunk(start, start + sum(taken), sequences, taken)
