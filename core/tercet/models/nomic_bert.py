"""NomicBERT: BERT with rotary positions and a gated feed-forward, in its authors' layout and in transformers'."""

from __future__ import annotations

from functools import partial
from typing import Self

from tercet.errors import UnsupportedModelError
from tercet.models.registry import Config, num_labels, register
from tercet.models.rope import rotary_from
from tercet.models.rotary_encoder import FULL, POST_NORM, RotaryEncoder, head_dim
from tercet.nn.activations import activation_name
from tercet.nn.heads import Classifier, MaskedLM
from tercet.nn.layers import Embeddings, FeedForward, PostNormBlock, SelfAttention
from tercet.nn.norms import LayerNorm
from tercet.nn.rotary import Rotary

_GATES = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
_GATED_MULTIPLE = 256  # the authors round a gated feed-forward's width up to it
# Options of the authors' code that no published text encoder turns on.
_UNSUPPORTED = (
    "prenorm",
    "causal",
    "parallel_block",
    "use_rms_norm",
    "rotary_emb_interleaved",
    "rotary_emb_scale_base",
)


@register("NomicBertModel", "NomicBertForMaskedLM", "NomicBertForSequenceClassification")
class NomicBert(RotaryEncoder):
    """Nussbaum et al. 2024."""

    paper = "https://arxiv.org/abs/2402.01613"
    tiny = {
        "model_type": "nomic_bert",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
    }
    variants = ({}, {"rope_parameters": {"rope_type": "default", "rope_theta": 3e4}, "type_vocab_size": 3})
    prefixes = ("nomic_bert.", "bert.")
    renames = {
        **POST_NORM,
        "emb_ln": "embeddings.norm",
        "encoder.layers.*.attn.Wqkv": "layers.*.attention.qkv",
        "encoder.layers.*.attn.out_proj": "layers.*.attention.out",
        "encoder.layers.*.mlp.fc12": "layers.*.ffn.up:0",
        "encoder.layers.*.mlp.fc11": "layers.*.ffn.up:1",
        "encoder.layers.*.mlp.fc1": "layers.*.ffn.up",
        "encoder.layers.*.mlp.fc2": "layers.*.ffn.down",
        "encoder.layers.*.norm1": "layers.*.attention_norm",
        "encoder.layers.*.norm2": "layers.*.ffn_norm",
    }
    ignored = ("pooler", "cls", "classifier")
    masked_lm_renames = {
        "cls.predictions.transform.dense": "dense",
        "cls.predictions.transform.layer_norm": "norm",
        "cls.predictions.decoder": "decoder",
        "cls.predictions.bias": "decoder.bias",
    }
    classifier_renames = {"pooler.dense": "dense", "classifier": "out"}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights."""
        config = _settings(config)
        types = config["type_vocab_size"]
        embeddings = Embeddings(config["vocab_size"], config["hidden_size"], _norm(config), token_types=types)
        layers = [(FULL, _layer(config)) for _ in range(config["num_hidden_layers"])]
        return cls(embeddings, layers, {FULL: _rotary(config)})

    @classmethod
    def masked_lm(cls, config: Config) -> MaskedLM:
        """Return the language-model head."""
        config = _settings(config)
        return MaskedLM(
            config["hidden_size"],
            config["vocab_size"],
            _norm(config),
            config["lm_activation"],
            dense_bias=config["lm_bias"],
            decoder_bias=config["lm_bias"],
        )

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head: a dense layer on the first token's state, then the output."""
        return Classifier(_settings(config)["hidden_size"], num_labels(config), activation="tanh")

    @classmethod
    def max_positions(cls, config: Config) -> int:
        """Return the longest text; rotation numbers any, so it is what the authors say."""
        return int(config.get("n_positions") or config.get("max_position_embeddings", 2048))


def _norm(config: Config) -> LayerNorm:
    return LayerNorm(config["hidden_size"], config["layer_norm_eps"])


def _layer(config: Config) -> PostNormBlock:
    hidden = config["hidden_size"]
    ffn = FeedForward(
        hidden,
        config["intermediate_size"],
        config["activation"],
        bias=config["mlp_fc1_bias"],
        down_bias=config["mlp_fc2_bias"],
        gated=config["gated"],
    )
    attention = SelfAttention(
        hidden, config["num_attention_heads"], head_dim=head_dim(config), bias=config["qkv_proj_bias"]
    )
    return PostNormBlock(attention, ffn, partial(_norm, config))


def _rotary(config: Config) -> Rotary:
    theta, scaling = config.get("rope_theta") or 1000.0, config.get("rope_scaling")
    return rotary_from(config, head_dim(config), theta=theta, scaling=scaling)


def _settings(config: Config) -> Config:
    """Return the configuration under transformers' names, and what it fixes by the names of the authors' options."""
    if "n_embd" in config:
        return _from_authors(config)
    activation = activation_name(config["hidden_act"])
    biases = dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), False)
    return {**config, **biases, "gated": True, "activation": activation, "lm_activation": activation, "lm_bias": True}


def _from_authors(config: Config) -> Config:
    _refuse_unsupported(config)
    function, inner = config["activation_function"], config.get("n_inner") or 4 * config["n_embd"]
    gated = function in _GATES
    activation = _GATES[function] if gated else activation_name(function)
    return {
        **config,
        "vocab_size": _round_up(config["vocab_size"], config.get("pad_vocab_size_multiple", 1)),
        "type_vocab_size": config.get("type_vocab_size", 0),
        "hidden_size": config["n_embd"],
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": config["n_head"],
        "intermediate_size": _round_up(inner, _GATED_MULTIPLE) if gated else inner,
        "layer_norm_eps": config["layer_norm_epsilon"],
        "rope_theta": config["rotary_emb_base"],
        "rope_scaling": _rope_scaling(config),
        "gated": gated,
        "activation": activation,
        "lm_activation": activation if activation in ("silu", "gelu_tanh") else "gelu",
        "lm_bias": config["mlp_fc1_bias"],
    }


def _rope_scaling(config: Config) -> Config:
    scaling = {"partial_rotary_factor": config["rotary_emb_fraction"]}
    if not (factor := config.get("rotary_scaling_factor")):
        return scaling
    trained = config.get("max_trained_positions", 2048)
    return {**scaling, "type": "dynamic", "factor": factor, "original_max_position_embeddings": trained}


def _refuse_unsupported(config: Config) -> None:
    if config.get("num_experts") and config.get("moe_every_n_layers"):
        raise UnsupportedModelError("NomicBERT with a mixture of experts is not supported; only its dense models are")
    if not config["rotary_emb_fraction"]:
        raise UnsupportedModelError(
            "NomicBERT with learned positions is not supported; rotary_emb_fraction must be > 0"
        )
    for option in _UNSUPPORTED:
        if config.get(option):
            raise UnsupportedModelError(
                f"NomicBERT with {option}={config[option]!r} is not supported; it must be unset"
            )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
