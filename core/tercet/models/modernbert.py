"""ModernBERT: pre-norm encoder whose layers look at all of a text or at a window of it, in turns."""

from __future__ import annotations

from functools import partial
from typing import Self

from torch import nn

from tercet.models.registry import Config, num_labels, register
from tercet.models.rope import rotary_from
from tercet.models.rotary_encoder import FULL, SLIDING, RotaryEncoder, head_dim
from tercet.nn.activations import activation_name
from tercet.nn.heads import Classifier, MaskedLM
from tercet.nn.layers import Embeddings, FeedForward, PreNormBlock, SelfAttention
from tercet.nn.norms import LayerNorm
from tercet.nn.rotary import Rotary


@register("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification")
class ModernBert(RotaryEncoder):
    """Warner et al. 2024."""

    paper = "https://arxiv.org/abs/2412.13663"
    tiny = {
        "model_type": "modernbert",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "local_attention": 16,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    variants = (
        {},
        {
            "global_attn_every_n_layers": 2,
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
            "classifier_pooling": "mean",
            "classifier_activation": "silu",
            "decoder_bias": False,
        },
    )
    prefixes = ("model.",)
    renames = {
        "embeddings.tok_embeddings": "embeddings.words",
        "embeddings.norm": "embeddings.norm",
        "layers.*.attn_norm": "layers.*.attention_norm",
        "layers.*.attn.Wqkv": "layers.*.attention.qkv",
        "layers.*.attn.Wo": "layers.*.attention.out",
        "layers.*.mlp_norm": "layers.*.ffn_norm",
        "layers.*.mlp.Wi": "layers.*.ffn.up",
        "layers.*.mlp.Wo": "layers.*.ffn.down",
        "final_norm": "norm",
    }
    ignored = ("head", "decoder", "classifier")
    masked_lm_renames = {"head.dense": "dense", "head.norm": "norm", "decoder": "decoder"}
    classifier_renames = {"head.dense": "dense", "head.norm": "norm", "classifier": "out"}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights."""
        embeddings = Embeddings(config["vocab_size"], config["hidden_size"], _norm(config))
        layers = [(kind, _layer(config, kind)) for kind in _layer_types(config)]
        layers[0][1].attention_norm = nn.Identity()  # the embeddings are normalised already
        return cls(embeddings, layers, {kind: _rotary(config, kind) for kind in (FULL, SLIDING)}, _norm(config))

    @classmethod
    def masked_lm(cls, config: Config) -> MaskedLM:
        """Return the language-model head."""
        return MaskedLM(
            config["hidden_size"],
            config["vocab_size"],
            _norm(config),
            activation_name(config.get("classifier_activation", "gelu")),
            dense_bias=config.get("classifier_bias", False),
            decoder_bias=config.get("decoder_bias", True),
        )

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head."""
        return Classifier(
            config["hidden_size"],
            num_labels(config),
            pooling=config.get("classifier_pooling", "cls"),
            dense_bias=config.get("classifier_bias", False),
            activation=activation_name(config.get("classifier_activation", "gelu")),
            norm=_norm(config),
        )


def _norm(config: Config) -> LayerNorm:
    return LayerNorm(config["hidden_size"], config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))


def _layer(config: Config, kind: str) -> PreNormBlock:
    reach = config.get("local_attention", 128) // 2 if kind == SLIDING else -1
    bias = config.get("attention_bias", False)
    attention = SelfAttention(config["hidden_size"], config["num_attention_heads"], bias=bias, window=(reach, reach))
    ffn = FeedForward(
        config["hidden_size"],
        config["intermediate_size"],
        activation_name(config.get("hidden_activation", "gelu")),
        bias=config.get("mlp_bias", False),
        gated=True,
    )
    return PreNormBlock(attention, ffn, partial(_norm, config))


def _layer_types(config: Config) -> list[str]:
    period = config.get("global_attn_every_n_layers") or 3
    default = [SLIDING if i % period else FULL for i in range(config["num_hidden_layers"])]
    return config.get("layer_types") or default


def _rotary(config: Config, kind: str) -> Rotary:
    theta = config.get("global_rope_theta") or 160_000.0
    if kind == SLIDING:
        # A null stood for the global theta; only a configuration without the key means the default.
        theta = config.get("local_rope_theta", 10_000.0) or theta
    return rotary_from(config, head_dim(config), theta=theta, scaling=config.get("rope_scaling"), layer_type=kind)
