"""ELECTRA: BERT over a word table that may be narrower than its layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from tercet.models.encoder import BERT, CLASSIFICATION_HEAD, Encoder, norm_from
from tercet.models.registry import Config, register
from tercet.nn.linear import Linear


@register("ElectraModel", "ElectraForMaskedLM", "ElectraForSequenceClassification", "ElectraForPreTraining")
class Electra(Encoder):
    """Clark et al. 2020; the discriminator is the encoder, the generator carries the language-model head."""

    paper = "https://arxiv.org/abs/2003.10555"
    tiny = {
        "model_type": "electra",
        "vocab_size": 128,
        "embedding_size": 24,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    variants = ({}, {"embedding_size": 32})
    prefixes = ("electra.",)
    renames = {
        **BERT,
        "embeddings.LayerNorm": "embeddings.norm.norm",
        "embeddings_project": "embeddings.norm.projection",
    }
    ignored = (
        "embeddings.position_ids",
        "generator_predictions",
        "generator_lm_head",
        "discriminator_predictions",
        "classifier",
    )
    masked_lm_renames = {
        "generator_predictions.dense": "dense",
        "generator_predictions.LayerNorm": "norm",
        "generator_lm_head": "decoder",
    }
    classifier_renames = CLASSIFICATION_HEAD
    lm_activation = "gelu"
    classifier_activation = "gelu"

    @classmethod
    def embeddings_norm(cls, config: Config) -> nn.Sequential:
        """Return the norm, then the projection from the table's width to the layers'."""
        width, hidden = config["embedding_size"], config["hidden_size"]
        steps = nn.Sequential(OrderedDict[str, nn.Module](norm=norm_from(config, width)))
        if width != hidden:
            steps.add_module("projection", Linear(width, hidden))
        return steps
