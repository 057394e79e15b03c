"""What BERT's descendants share. No family by itself: each says in its own file how it differs."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Self

from torch import Tensor, nn

from tercet.models.registry import Backbone, Config, Renames, num_labels
from tercet.nn.activations import activation_name
from tercet.nn.attention import Bias
from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Classifier, MaskedLM
from tercet.nn.layers import Embeddings, FeedForward, PostNormBlock, SelfAttention
from tercet.nn.norms import LayerNorm


def qkv(path: str, query: str, key: str, value: str) -> Renames:
    """Return the renames that lay a layer's three projections below `path` into one fused product."""
    return {f"{path}.{name}": f"layers.*.attention.qkv:{part}" for part, name in enumerate((query, key, value))}


EMBEDDINGS: Renames = {
    "embeddings.word_embeddings": "embeddings.words",
    "embeddings.position_embeddings": "embeddings.positions",
    "embeddings.token_type_embeddings": "embeddings.token_types",
    "embeddings.LayerNorm": "embeddings.norm",
}
FEED_FORWARD: Renames = {
    "encoder.layer.*.intermediate.dense": "layers.*.ffn.up",
    "encoder.layer.*.output.dense": "layers.*.ffn.down",
    "encoder.layer.*.output.LayerNorm": "layers.*.ffn_norm",
}
ATTENTION_OUTPUT: Renames = {
    "encoder.layer.*.attention.output.dense": "layers.*.attention.out",
    "encoder.layer.*.attention.output.LayerNorm": "layers.*.attention_norm",
}
BERT: Renames = {
    **EMBEDDINGS,
    **qkv("encoder.layer.*.attention.self", "query", "key", "value"),
    **ATTENTION_OUTPUT,
    **FEED_FORWARD,
}
# Heads, by the names that two families or more give them.
PREDICTIONS: Renames = {
    "cls.predictions.transform.dense": "dense",
    "cls.predictions.transform.LayerNorm": "norm",
    "cls.predictions.decoder": "decoder",
    "cls.predictions.bias": "decoder.bias",
}
LM_HEAD: Renames = {
    "lm_head.dense": "dense",
    "lm_head.layer_norm": "norm",
    "lm_head.decoder": "decoder",
    "lm_head.bias": "decoder.bias",
}
CLASSIFICATION_HEAD: Renames = {"classifier.dense": "dense", "classifier.out_proj": "out"}


class Encoder(Backbone):
    """Embeddings, then post-norm layers.

    Attributes:
        lm_activation: of the language-model head, None for the layers' own.
        classifier_activation: of the classification head.
    """

    lm_activation: ClassVar[str | None] = None
    classifier_activation: ClassVar[str] = "tanh"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = self.embeddings_from(config)
        self.layers = nn.ModuleList(self.layer_from(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H) last hidden states."""
        x: Tensor = self.embeddings(batch)
        bias = self.bias(batch)
        for layer in self.layers:
            x = layer(x, batch, bias=bias)
        return x

    def bias(self, batch: PackedBatch) -> Bias | None:
        """Return what every layer adds to its attention scores, if anything."""
        return None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights."""
        return cls(config)

    @classmethod
    def embeddings_from(cls, config: Config) -> Embeddings:
        """Return the input layer: words, positions and token types."""
        return Embeddings(
            config["vocab_size"],
            embedding_size(config),
            cls.embeddings_norm(config),
            positions=config["max_position_embeddings"],
            first_position=cls.first_position(config),
            token_types=config.get("type_vocab_size", 2),
        )

    @classmethod
    def embeddings_norm(cls, config: Config) -> nn.Module:
        """Return what the summed embeddings go through."""
        return norm_from(config)

    @classmethod
    def layer_from(cls, config: Config) -> PostNormBlock:
        """Return one layer."""
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        ffn = FeedForward(hidden, config["intermediate_size"], activation_name(config["hidden_act"]))
        return PostNormBlock(SelfAttention(hidden, heads), ffn, partial(norm_from, config))

    @classmethod
    def masked_lm(cls, config: Config) -> MaskedLM:
        """Return the language-model head, as wide inside as the word table."""
        activation = activation_name(cls.lm_activation or config["hidden_act"])
        width = embedding_size(config)
        norm = norm_from(config, width)
        return MaskedLM(config["hidden_size"], config["vocab_size"], norm, activation, width=width)

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head: a dense layer on the first token's state, then the output."""
        return Classifier(config["hidden_size"], num_labels(config), activation=cls.classifier_activation)

    @classmethod
    def first_position(cls, config: Config) -> int:
        """Return the row of the position table that a text's first token takes."""
        return 0

    @classmethod
    def max_positions(cls, config: Config) -> int:
        """Return the longest sequence that the position table has rows for."""
        return int(config["max_position_embeddings"]) - cls.first_position(config)


def embedding_size(config: Config) -> int:
    """Return the width of the word table, H unless the configuration says otherwise."""
    return int(config.get("embedding_size") or config["hidden_size"])


def norm_from(config: Config, width: int | None = None) -> LayerNorm:
    """Return one of the encoder's norms, over H or `width`."""
    return LayerNorm(width or config["hidden_size"], eps=config.get("layer_norm_eps", 1e-12))
