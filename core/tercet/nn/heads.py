"""Heads: token states in, one kind of output out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn import compiled_rows
from tercet.nn.activations import activated
from tercet.nn.batch import PackedBatch
from tercet.nn.linear import Linear
from tercet.nn.pooling import pool
from tercet.nn.transfer import to_host

_LEAST_LENGTH = 1e-12


class Head(nn.Module):
    """Turns token states into one kind of output.

    `forward` stays on the device and never waits for it; `rows` runs after the one copy back to the host.
    """

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return this head's output for (T, H) states, on the device."""
        raise NotImplementedError

    def logits(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return the output before its activation, for the heads that score."""
        raise NotImplementedError

    def rows(self, output: Tensor, batch: PackedBatch) -> Sequence[Any]:
        """Return one host-side value per sequence of the batch; by default the rows of (B, …) as numpy."""
        # Even where there is nothing to convert, torch lets go of the interpreter's lock for it.
        return cast(Sequence[Any], to_host(output if output.dtype == torch.float32 else output.float()))


class Dense(nn.Module):
    """activation(W x + b) (+ x, or + R x where the widths differ): sentence-transformers' Dense module, in float32."""

    def __init__(
        self, width: int, out: int, *, bias: bool = True, activation: str | None = None, residual: bool = False
    ) -> None:
        super().__init__()
        self.linear = Linear(width, out, bias)
        self.skip = Linear(width, out, bias=False) if residual and width != out else None
        self.activation, self.residual = activation, residual

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, out)."""
        added = x if self.skip is None else self.skip(x)
        out: Tensor = self.linear(x, activation=self.activation, residual=added if self.residual else None)
        return out


class Normalize(nn.Module):
    """x / max(‖x‖, 1e-12) over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """Return unit vectors, same shape."""
        if compiled_rows.fuses(x):
            return compiled_rows.unit(x, _LEAST_LENGTH)
        return F.normalize(x, dim=-1, eps=_LEAST_LENGTH)


class DenseHead(Head):
    """One vector per text: pooling, then Dense, LayerNorm and Normalize steps in the checkpoint's order.

    Returns:
        (B, D) float32.
    """

    def __init__(self, poolings: tuple[str, ...], steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.poolings = poolings
        self.steps = nn.Sequential(*steps)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, D) float32."""
        out: Tensor = self.steps(pool(hidden, batch, self.poolings))
        return out


class MaskedLM(nn.Module):
    """Token states to vocabulary logits: dense → activation → norm → decoder, the head of every masked language model.

    Args:
        hidden: H. vocab: V. width: of the decoder's input, default H.
        norm: the layer between activation and decoder.
    """

    def __init__(
        self,
        hidden: int,
        vocab: int,
        norm: nn.Module,
        activation: str | None,
        *,
        width: int | None = None,
        dense_bias: bool = True,
        decoder_bias: bool = True,
    ) -> None:
        super().__init__()
        self.dense = Linear(hidden, width or hidden, dense_bias)
        self.norm = norm
        self.decoder = Linear(width or hidden, vocab, decoder_bias)
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (T, V) logits."""
        return self.decode(self.transform(hidden))

    def transform(self, hidden: Tensor) -> Tensor:
        """Return (T, width), what the decoder reads."""
        out: Tensor = self.norm(self.dense(hidden, activation=self.activation))
        return out

    def decode(self, transformed: Tensor) -> Tensor:
        """Return (T, V) logits of transformed states."""
        out: Tensor = self.decoder(transformed)
        return out


class Classifier(nn.Module):
    """Pooled state → (dense → activation → norm) → logits: the head of every sequence classifier.

    Args:
        hidden: H. labels: L.
        pooling: key of `POOLINGS`.
        dense: whether a dense layer comes before the output.
        norm: the layer after the activation, or None.
    """

    def __init__(
        self,
        hidden: int,
        labels: int,
        *,
        pooling: str = "cls",
        dense: bool = True,
        dense_bias: bool = True,
        activation: str | None = None,
        norm: nn.Module | None = None,
        out_bias: bool = True,
    ) -> None:
        super().__init__()
        self.dense = Linear(hidden, hidden, dense_bias) if dense else None
        self.norm = norm
        self.out = Linear(hidden, labels, out_bias)
        self.pooling, self.activation = pooling, activation

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, L) logits."""
        x = pool(hidden, batch, (self.pooling,)).to(hidden.dtype)
        if self.dense is not None:
            x = self.dense(x, activation=self.activation)
        if self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.out(x)
        return out


class ScoreHead(Head):
    """Cross-encoder scores: classifier logits through the checkpoint's activation.

    Returns:
        (B, L) float32.
    """

    def __init__(self, classifier: Classifier, activation: str | None) -> None:
        super().__init__()
        self.classifier, self.activation = classifier, activation

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, L) float32."""
        return activated(self.logits(hidden, batch), self.activation)

    def logits(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, L) float32, before the activation."""
        logits: Tensor = self.classifier(hidden, batch)
        return logits.float()
