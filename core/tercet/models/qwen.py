"""Qwen2 and Qwen3: causal decoders read at their last token, or bidirectional where the configuration says so."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Self

from tercet.models.registry import Config, num_labels, register
from tercet.models.rope import rotary_from
from tercet.models.rotary_encoder import DECODER, FULL, SLIDING, RotaryEncoder, head_dim
from tercet.nn.activations import activation_name
from tercet.nn.heads import Classifier
from tercet.nn.layers import Embeddings, FeedForward, PreNormBlock, SelfAttention
from tercet.nn.norms import RMSNorm
from tercet.nn.varlen import Window


class Qwen(RotaryEncoder):
    """What Qwen2 and Qwen3 share.

    Attributes:
        qkv_bias: of the fused product; None leaves it to `attention_bias`, which then holds for the output too.
        qk_norm: whether queries and keys are normalised over each head.
    """

    qkv_bias: ClassVar[bool | None] = None
    qk_norm: ClassVar[bool] = False
    prefixes = ("model.",)
    renames = {
        **DECODER,
        "layers.*.self_attn.q_norm": "layers.*.attention.q_norm",
        "layers.*.self_attn.k_norm": "layers.*.attention.k_norm",
        "layers.*.post_attention_layernorm": "layers.*.ffn_norm",
    }
    ignored = ("lm_head", "score")
    classifier_renames = {"score": "out"}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights."""
        theta, scaling = config.get("rope_theta") or 10_000.0, config.get("rope_scaling")
        return cls(
            Embeddings(config["vocab_size"], config["hidden_size"], None),
            [(kind, cls._layer(config, kind)) for kind in _layer_types(config)],
            dict.fromkeys((FULL, SLIDING), rotary_from(config, head_dim(config), theta=theta, scaling=scaling)),
            _norm(config, config["hidden_size"]),
        )

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head: one product on the last token's state."""
        return Classifier(config["hidden_size"], num_labels(config), pooling="lasttoken", dense=False, out_bias=False)

    @classmethod
    def _layer(cls, config: Config, kind: str) -> PreNormBlock:
        bias = config.get("attention_bias", False)
        attention = SelfAttention(
            config["hidden_size"],
            config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads"),
            head_dim=head_dim(config),
            bias=bias if cls.qkv_bias is None else cls.qkv_bias,
            out_bias=bias,
            causal=config.get("is_causal", True),
            window=_window(config, kind),
            qk_norm=partial(_norm, config) if cls.qk_norm else None,
        )
        activation = activation_name(config["hidden_act"])
        ffn = FeedForward(config["hidden_size"], config["intermediate_size"], activation, bias=False, gated=True)
        return PreNormBlock(attention, ffn, partial(_norm, config, config["hidden_size"]))


TINY: Config = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
}
VARIANTS: tuple[Config, ...] = (
    {},
    {"is_causal": False, "num_key_value_heads": 1},
    {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1, "is_causal": False},
    {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 4.0}, "max_position_embeddings": 16},
)


@register("Qwen2Model", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification")
class Qwen2(Qwen):
    """Yang et al. 2024."""

    paper = "https://arxiv.org/abs/2407.10671"
    tiny = {"model_type": "qwen2", **TINY}
    variants = VARIANTS
    qkv_bias = True


@register("Qwen3Model", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification")
class Qwen3(Qwen):
    """Yang et al. 2025."""

    paper = "https://arxiv.org/abs/2505.09388"
    tiny = {"model_type": "qwen3", "head_dim": 16, **TINY}
    variants = ({}, {"attention_bias": True, "is_causal": False}, *VARIANTS[2:])
    qk_norm = True


def _norm(config: Config, width: int) -> RMSNorm:
    return RMSNorm(width, config.get("rms_norm_eps", 1e-6))


def _layer_types(config: Config) -> list[str]:
    sliding = config.get("use_sliding_window") and config.get("sliding_window")
    first = config.get("max_window_layers", 28) if sliding else config["num_hidden_layers"]
    default = [SLIDING if i >= first else FULL for i in range(config["num_hidden_layers"])]
    return config.get("layer_types") or default


def _window(config: Config, kind: str) -> Window:
    """Return how far a layer sees; the configuration's number counts the token itself when the layer is causal."""
    if kind == FULL:
        return (-1, -1)
    reach = config["sliding_window"]
    return (reach - 1, 0) if config.get("is_causal", True) else (reach, reach)
