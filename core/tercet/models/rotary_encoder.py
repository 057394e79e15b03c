"""What families with rotary positions share. No family by itself: each says in its own file how it differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from tercet.models.registry import Backbone, Config, Renames
from tercet.nn.batch import PackedBatch
from tercet.nn.layers import Embeddings
from tercet.nn.rotary import Angles, Rotary

FULL, SLIDING = "full_attention", "sliding_attention"

# Projections under the names that Llama gave them, which transformers keeps for most later families.
ATTENTION: Renames = {
    "layers.*.self_attn.q_proj": "layers.*.attention.qkv:0",
    "layers.*.self_attn.k_proj": "layers.*.attention.qkv:1",
    "layers.*.self_attn.v_proj": "layers.*.attention.qkv:2",
    "layers.*.self_attn.o_proj": "layers.*.attention.out",
}
GATED_FFN: Renames = {
    "layers.*.mlp.gate_proj": "layers.*.ffn.up:0",
    "layers.*.mlp.up_proj": "layers.*.ffn.up:1",
    "layers.*.mlp.down_proj": "layers.*.ffn.down",
}
DECODER: Renames = {
    **ATTENTION,
    **GATED_FFN,
    "embed_tokens": "embeddings.words",
    "layers.*.input_layernorm": "layers.*.attention_norm",
    "norm": "norm",
}

POST_NORM: Renames = {
    **ATTENTION,
    **GATED_FFN,
    "embeddings.word_embeddings": "embeddings.words",
    "embeddings.token_type_embeddings": "embeddings.token_types",
    "embeddings.LayerNorm": "embeddings.norm",
    "layers.*.post_attention_layernorm": "layers.*.attention_norm",
    "layers.*.post_mlp_layernorm": "layers.*.ffn_norm",
}


class RotaryEncoder(Backbone):
    """Embeddings, layers that rotate queries and keys, and what comes after the last of them.

    Args:
        embeddings: the input layer.
        layers: each with its type, a key of `rotaries`.
        rotaries: per type of layer, its angles.
        norm: applied to the last layer's states, or None.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        layers: Iterable[tuple[str, nn.Module]],
        rotaries: Mapping[str, Rotary],
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layer_types, blocks = zip(*layers, strict=True)
        self.embeddings, self.layers, self.norm = embeddings, nn.ModuleList(blocks), norm
        self.rotaries = {kind: rotaries[kind] for kind in dict.fromkeys(self.layer_types)}

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H) last hidden states."""
        x = self.embed(batch)
        angles = self.angles(batch, x)
        for kind, layer in zip(self.layer_types, self.layers, strict=True):
            x = layer(x, batch, angles=angles[kind])
        return x if self.norm is None else self.norm(x)

    def embed(self, batch: PackedBatch) -> Tensor:
        """Return (T, H), what the first layer reads."""
        x: Tensor = self.embeddings(batch)
        return x

    def angles(self, batch: PackedBatch, x: Tensor) -> dict[str, Angles]:
        """Return each type of layer's angles in the dtype of x."""
        return {kind: rotary.angles(batch, x.dtype) for kind, rotary in self.rotaries.items()}


def head_dim(config: Config) -> int:
    """Return d, H / N unless the configuration says otherwise."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
