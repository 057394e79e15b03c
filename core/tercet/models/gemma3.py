"""Gemma 3's text model: norms before and after each block, bidirectional as EmbeddingGemma uses it."""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from torch import Tensor

from tercet.errors import UnsupportedModelError
from tercet.models.registry import Config, num_labels, register
from tercet.models.rope import rotary_from
from tercet.models.rotary_encoder import DECODER, FULL, SLIDING, RotaryEncoder, head_dim
from tercet.nn.activations import activation_name
from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Classifier
from tercet.nn.layers import Embeddings, FeedForward, SandwichNormBlock, SelfAttention
from tercet.nn.norms import RMSNorm
from tercet.nn.rotary import Rotary
from tercet.nn.varlen import Window


@register("Gemma3TextModel", "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification")
class Gemma3(RotaryEncoder):
    """Gemma Team 2025; as an encoder, Schechter Vera et al. 2025, arXiv:2509.20354."""

    paper = "https://arxiv.org/abs/2503.19786"
    tiny = {
        "model_type": "gemma3_text",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "sliding_window": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window_pattern": 2,
        "use_bidirectional_attention": True,
    }
    variants = (
        {},
        {"rope_theta": 5e5, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"use_bidirectional_attention": False, "attention_bias": True, "num_key_value_heads": 2},
    )
    prefixes = ("model.",)
    renames = {
        **DECODER,
        "layers.*.self_attn.q_norm": "layers.*.attention.q_norm",
        "layers.*.self_attn.k_norm": "layers.*.attention.k_norm",
        "layers.*.post_attention_layernorm": "layers.*.attention_out_norm",
        "layers.*.pre_feedforward_layernorm": "layers.*.ffn_norm",
        "layers.*.post_feedforward_layernorm": "layers.*.ffn_out_norm",
    }
    ignored = ("lm_head", "score")
    classifier_renames = {"score": "out"}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights."""
        if config.get("attn_logit_softcapping"):
            raise UnsupportedModelError("Gemma 3 with attn_logit_softcapping is not supported; it must be null")
        return cls(
            Embeddings(config["vocab_size"], config["hidden_size"], None),
            [(kind, _layer(config, kind)) for kind in _layer_types(config)],
            {kind: _rotary(config, kind) for kind in (FULL, SLIDING)},
            _norm(config, config["hidden_size"]),
        )

    def embed(self, batch: PackedBatch) -> Tensor:
        """Return the word vectors times √H, the factor rounded to their dtype as in training."""
        x = super().embed(batch)
        scale = torch.tensor(x.shape[-1] ** 0.5, dtype=x.dtype, device="cpu")
        return x * scale.item()

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head: one product on the last token's state."""
        return Classifier(config["hidden_size"], num_labels(config), pooling="lasttoken", dense=False, out_bias=False)


def _norm(config: Config, width: int) -> RMSNorm:
    return RMSNorm(width, config.get("rms_norm_eps", 1e-6), offset=1.0)


def _layer(config: Config, kind: str) -> SandwichNormBlock:
    attention = SelfAttention(
        config["hidden_size"],
        config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=head_dim(config),
        bias=config.get("attention_bias", False),
        causal=not config.get("use_bidirectional_attention"),
        window=_window(config, kind),
        scale=config.get("query_pre_attn_scalar", 256) ** -0.5,
        qk_norm=partial(_norm, config),
    )
    activation = activation_name(config.get("hidden_activation", "gelu_pytorch_tanh"))
    ffn = FeedForward(config["hidden_size"], config["intermediate_size"], activation, bias=False, gated=True)
    return SandwichNormBlock(attention, ffn, partial(_norm, config, config["hidden_size"]))


def _layer_types(config: Config) -> list[str]:
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    default = [SLIDING if (i + 1) % period else FULL for i in range(config["num_hidden_layers"])]
    return config.get("layer_types") or default


def _window(config: Config, kind: str) -> Window:
    """Return how far a layer sees: the window is the whole of what it sees, to both sides or to the left."""
    if kind == FULL:
        return (-1, -1)
    width = config.get("sliding_window") or 4096
    return (width // 2, width // 2) if config.get("use_bidirectional_attention") else (width - 1, 0)


def _rotary(config: Config, kind: str) -> Rotary:
    if kind == FULL:
        theta, scaling = config.get("rope_theta") or 1_000_000.0, config.get("rope_scaling")
    else:
        theta, scaling = config.get("rope_local_base_freq") or 10_000.0, None
    return rotary_from(config, head_dim(config), theta=theta, scaling=scaling, layer_type=kind)
