"""The blocks that families are wired from. Shapes: T packed tokens, H hidden, N heads, K key heads, d per head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tercet.nn import compiled_rows, fused_rows
from tercet.nn.activations import ACTIVATIONS
from tercet.nn.attention import Bias, attention
from tercet.nn.batch import PackedBatch
from tercet.nn.linear import Linear
from tercet.nn.norms import LayerNorm, RMSNorm
from tercet.nn.rotary import Angles, rotate
from tercet.nn.varlen import Window


class Embeddings(nn.Module):
    """Word, position and token-type vectors summed, then normalised; Devlin et al. 2018, arXiv:1810.04805.

    Args:
        vocab: rows of the word table.
        width: H.
        norm: applied to the sum, or None.
        positions: rows of the position table, 0 for none.
        first_position: the row of a text's first token (RoBERTa starts at padding_idx + 1).
        token_types: rows of the token-type table, 0 for none.
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        norm: nn.Module | None,
        *,
        positions: int = 0,
        first_position: int = 0,
        token_types: int = 0,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(positions, width) if positions else None
        self.token_types = nn.Embedding(token_types, width) if token_types else None
        self.norm = norm
        self.first_position = first_position

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H)."""
        if fused_rows.fuses(self.words.weight):
            x = self._fused(batch)
        elif compiled_rows.fuses(self.words.weight):
            x = self._compiled(batch)
        else:
            x = self._sum(batch)
        return x if self.norm is None else self.norm(x)

    def _sum(self, batch: PackedBatch) -> Tensor:
        x: Tensor = self.words(batch.input_ids)
        if self.positions is not None:
            x = x + self.positions(batch.positions + self.first_position)
        if self.token_types is not None:
            types = batch.token_types
            x = x + (self.token_types.weight[0] if types is None else self.token_types(types))
        return x

    def _compiled(self, batch: PackedBatch) -> Tensor:
        places = None if self.positions is None else self.positions.weight[self.first_position :]
        kinds = None if self.token_types is None else self.token_types.weight
        return compiled_rows.embed(batch.lookups, self.words.weight, places, kinds)

    def _fused(self, batch: PackedBatch) -> Tensor:
        places = kinds = None
        if self.positions is not None:
            places = batch.positions, self.positions.weight[self.first_position :]
        if self.token_types is not None:
            types = torch.zeros_like(batch.input_ids) if batch.token_types is None else batch.token_types
            kinds = types, self.token_types.weight
        return fused_rows.embed(batch.input_ids, self.words.weight, places, kinds)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused product for queries, keys and values.

    Args:
        hidden: H.
        heads: N. kv_heads: K, default N. head_dim: d, default H / N.
        bias: of the fused product. out_bias: of the output product, default as `bias`.
        causal, window, scale: as in `attention`.
        qk_norm: makes the norm of queries and keys over d, from (d).
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = True,
        out_bias: bool | None = None,
        causal: bool = False,
        window: Window = (-1, -1),
        scale: float | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.head_dim = head_dim or hidden // heads
        self.qkv = Linear(hidden, (self.heads + 2 * self.kv_heads) * self.head_dim, bias)
        self.out = Linear(self.heads * self.head_dim, hidden, bias if out_bias is None else out_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else None
        self.k_norm = qk_norm(self.head_dim) if qk_norm else None
        self.causal, self.window, self.scale = causal, window, scale

    def forward(
        self,
        x: Tensor,
        batch: PackedBatch,
        *,
        angles: Angles | None = None,
        bias: Bias | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Return (T, H), with `residual` added if given."""
        q, k, v = self.project(x)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = attention(
            *(q, k, v, batch),
            scale=self.scale,
            causal=self.causal,
            window=self.window,
            bias=bias,
            coarse=self.qkv.coarse,
        )
        out: Tensor = self.out(mixed, residual=residual)
        return out

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (T, N, d), keys and values (T, K, d), views of one product."""
        qkv = self.qkv(x).view(x.shape[0], -1, self.head_dim)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), 1)
        return q, k, v


class FeedForward(nn.Module):
    """Two products around an activation; gated, act(gate) · up from one fused product (Shazeer 2020, arXiv:2002.05202).

    Args:
        hidden: H. intermediate: I.
        activation: key of `ACTIVATIONS`.
        gated: whether `up` holds the gate too, (2 I, H).
        gate_first: whether the gate's rows come before those of up.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        activation: str | None,
        *,
        bias: bool = True,
        down_bias: bool | None = None,
        gated: bool = False,
        gate_first: bool = True,
    ) -> None:
        super().__init__()
        self.up = Linear(hidden, intermediate * (2 if gated else 1), bias)
        self.down = Linear(intermediate, hidden, bias if down_bias is None else down_bias)
        self.activation, self.gated, self.gate_first = activation, gated, gate_first

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return (T, H), with `residual` added if given."""
        inner = self._gate(self.up(x)) if self.gated else self.up(x, activation=self.activation)
        out: Tensor = self.down(inner, residual=residual)
        return out

    def _gate(self, x: Tensor) -> Tensor:
        fused = fused_rows.gate if fused_rows.fuses(x) else compiled_rows.gate
        if (gated := fused(x, self.activation, self.gate_first)) is not None:
            return gated
        first, second = x.chunk(2, -1)
        gate, up = (first, second) if self.gate_first else (second, first)
        return ACTIVATIONS[self.activation](gate) * up


class PostNormBlock(nn.Module):
    """x ← norm(x + attention(x)); x ← norm(x + ffn(x)): the block of BERT and its relatives."""

    def __init__(self, attention: SelfAttention, ffn: FeedForward, norm: Callable[[], LayerNorm | RMSNorm]) -> None:
        super().__init__()
        self.attention, self.ffn = attention, ffn
        self.attention_norm, self.ffn_norm = norm(), norm()

    def forward(
        self, x: Tensor, batch: PackedBatch, *, angles: Angles | None = None, bias: Bias | None = None
    ) -> Tensor:
        """Return (T, H)."""
        x = self.attention_norm.of_sum(x, partial(self.attention, x, batch, angles=angles, bias=bias))
        return self.ffn_norm.of_sum(x, partial(self.ffn, x))


class PreNormBlock(nn.Module):
    """x ← x + attention(norm(x)); x ← x + ffn(norm(x)): the block of ModernBERT and of decoder models."""

    def __init__(self, attention: SelfAttention, ffn: FeedForward, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.attention, self.ffn = attention, ffn
        self.attention_norm, self.ffn_norm = norm(), norm()

    def forward(self, x: Tensor, batch: PackedBatch, *, angles: Angles | None = None) -> Tensor:
        """Return (T, H)."""
        x = self.attention(self.attention_norm(x), batch, angles=angles, residual=x)
        out: Tensor = self.ffn(self.ffn_norm(x), residual=x)
        return out


class SandwichNormBlock(nn.Module):
    """x ← x + norm(attention(norm(x))); x ← x + norm(ffn(norm(x))): the block of Gemma 2 and 3."""

    def __init__(self, attention: SelfAttention, ffn: FeedForward, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.attention, self.ffn = attention, ffn
        self.attention_norm, self.attention_out_norm = norm(), norm()
        self.ffn_norm, self.ffn_out_norm = norm(), norm()

    def forward(self, x: Tensor, batch: PackedBatch, *, angles: Angles | None = None) -> Tensor:
        """Return (T, H)."""
        x = x + self.attention_out_norm(self.attention(self.attention_norm(x), batch, angles=angles))
        out: Tensor = x + self.ffn_out_norm(self.ffn(self.ffn_norm(x)))
        return out
