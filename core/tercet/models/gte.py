"""GTE, also known as the "new" architecture: BERT with rotary positions and a gated feed-forward, biases kept."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Self

from torch import Tensor

from tercet.errors import UnsupportedModelError
from tercet.models.registry import Config, num_labels, register
from tercet.models.rope import rotary_from
from tercet.models.rotary_encoder import FULL, POST_NORM, RotaryEncoder, head_dim
from tercet.nn.activations import activation_name
from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Classifier, MaskedLM
from tercet.nn.layers import Embeddings, FeedForward, PostNormBlock, SelfAttention
from tercet.nn.norms import LayerNorm, RMSNorm
from tercet.nn.rotary import Angles


@register(
    *(f"{name}{task}" for name in ("Gte", "New") for task in ("Model", "ForMaskedLM", "ForSequenceClassification"))
)
class Gte(RotaryEncoder):
    """Zhang et al. 2024, mGTE."""

    paper = "https://arxiv.org/abs/2407.19669"
    tiny = {
        "model_type": "gte",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "rope_theta": 500_000.0,
    }
    variants = ({}, {"type_vocab_size": 2, "rope_theta": 2e4})
    prefixes = ("gte.", "new.")
    renames = {
        **POST_NORM,
        "layers.*.mlp.up_proj": "layers.*.ffn.up:0",
        "layers.*.mlp.gate_proj": "layers.*.ffn.up:1",
        "encoder.layer.*.attention.qkv_proj": "layers.*.attention.qkv",
        "encoder.layer.*.attention.q_proj": "layers.*.attention.qkv:0",
        "encoder.layer.*.attention.k_proj": "layers.*.attention.qkv:1",
        "encoder.layer.*.attention.v_proj": "layers.*.attention.qkv:2",
        "encoder.layer.*.attention.o_proj": "layers.*.attention.out",
        "encoder.layer.*.attn_ln": "layers.*.attention_norm",
        "encoder.layer.*.mlp.up_gate_proj": "layers.*.ffn.up",
        "encoder.layer.*.mlp.down_proj": "layers.*.ffn.down",
        "encoder.layer.*.mlp_ln": "layers.*.ffn_norm",
    }
    ignored = ("embeddings.position_ids", "pooler", "lm_head", "classifier")
    masked_lm_renames = {
        "lm_head.dense": "dense",
        "lm_head.norm": "norm",
        "lm_head.layer_norm": "norm",
        "lm_head.decoder": "decoder",
    }
    classifier_renames = {"pooler.dense": "dense", "classifier": "out"}

    def __init__(self, *parts: Any, logn_limit: int | None, logn_least: float) -> None:
        super().__init__(*parts)
        self.logn_limit, self.logn_least = logn_limit, logn_least

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights."""
        if config.get("position_embedding_type", "rope") != "rope":
            raise UnsupportedModelError(
                "GTE with learned positions is not supported; position_embedding_type must be rope"
            )
        types, theta = config.get("type_vocab_size", 1), config.get("rope_theta") or _default_theta(config)
        rotary = rotary_from(config, head_dim(config), theta=theta, scaling=config.get("rope_scaling"))
        return cls(
            Embeddings(config["vocab_size"], config["hidden_size"], _norm(config), token_types=types),
            [(FULL, _layer(config)) for _ in range(config["num_hidden_layers"])],
            {FULL: rotary},
            logn_limit=config["max_position_embeddings"] if config.get("logn_attention_scale") else None,
            logn_least=1.0 if config.get("logn_attention_clip1") else 0.0,
        )

    def angles(self, batch: PackedBatch, x: Tensor) -> dict[str, Angles]:
        """Return the layers' angles; they carry the log-length scale of attention scores where there is one.

        The scale is one factor per text (Su 2021, https://kexue.fm/archives/8823). Queries and keys of a text each take
        its square root with their cosines and sines, so no layer knows of it.
        """
        angles = super().angles(batch, x)
        if self.logn_limit is None:
            return angles
        lengths = batch.lengths_tensor.float()
        limit = math.log(self.logn_limit)  # on the host: a recorded pass may copy nothing over
        scale = (lengths.log() / limit).clamp(min=self.logn_least).sqrt()
        per_token = scale[batch.sequence_index][:, None, None].to(x.dtype)
        return {kind: (cos * per_token, sin * per_token) for kind, (cos, sin) in angles.items()}

    @classmethod
    def masked_lm(cls, config: Config) -> MaskedLM:
        """Return the language-model head."""
        return MaskedLM(
            config["hidden_size"], config["vocab_size"], _norm(config), activation_name(config["hidden_act"])
        )

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head: a dense layer on the first token's state, then the output."""
        return Classifier(config["hidden_size"], num_labels(config), activation="tanh")


def _default_theta(config: Config) -> float:
    return 10_000.0 if config.get("model_type") == "new" else 160_000.0


def _norm(config: Config) -> LayerNorm | RMSNorm:
    kind = RMSNorm if config.get("layer_norm_type") == "rms_norm" else LayerNorm
    return kind(config["hidden_size"], config["layer_norm_eps"])


def _layer(config: Config) -> PostNormBlock:
    hidden = config["hidden_size"]
    activation = activation_name(config["hidden_act"])
    ffn = FeedForward(
        hidden, config["intermediate_size"], activation, bias=False, down_bias=True, gated=True, gate_first=False
    )
    return PostNormBlock(SelfAttention(hidden, config["num_attention_heads"]), ffn, partial(_norm, config))
