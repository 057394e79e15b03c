"""DistilBERT: BERT with half the layers, no token types and names of its own."""

from __future__ import annotations

from tercet.models.encoder import EMBEDDINGS, Encoder, qkv
from tercet.models.registry import Config, register
from tercet.nn.heads import Classifier, MaskedLM


@register("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification")
class DistilBert(Encoder):
    """Sanh et al. 2019."""

    paper = "https://arxiv.org/abs/1910.01108"
    tiny = {
        "model_type": "distilbert",
        "vocab_size": 128,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 64,
    }
    variants = ({}, {"activation": "relu", "sinusoidal_pos_embds": True})
    prefixes = ("distilbert.",)
    renames = {
        **EMBEDDINGS,
        **qkv("transformer.layer.*.attention", "q_lin", "k_lin", "v_lin"),
        "transformer.layer.*.attention.out_lin": "layers.*.attention.out",
        "transformer.layer.*.sa_layer_norm": "layers.*.attention_norm",
        "transformer.layer.*.ffn.lin1": "layers.*.ffn.up",
        "transformer.layer.*.ffn.lin2": "layers.*.ffn.down",
        "transformer.layer.*.output_layer_norm": "layers.*.ffn_norm",
    }
    ignored = (
        "embeddings.position_ids",
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        "pre_classifier",
        "classifier",
    )
    masked_lm_renames = {"vocab_transform": "dense", "vocab_layer_norm": "norm", "vocab_projector": "decoder"}
    classifier_renames = {"pre_classifier": "dense", "classifier": "out"}
    classifier_activation = "relu"

    def __init__(self, config: Config) -> None:
        super().__init__(_as_bert(config))

    @classmethod
    def masked_lm(cls, config: Config) -> MaskedLM:
        """Return the language-model head."""
        return super().masked_lm(_as_bert(config))

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the classification head."""
        return super().classifier(_as_bert(config))


def _as_bert(config: Config) -> Config:
    """Return the configuration under BERT's names."""
    return {
        **config,
        "hidden_size": config["dim"],
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "intermediate_size": config["hidden_dim"],
        "hidden_act": config["activation"],
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 0,
    }
