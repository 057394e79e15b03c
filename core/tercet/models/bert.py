"""BERT: post-norm encoder with learned positions."""

from __future__ import annotations

from tercet.models.encoder import BERT, PREDICTIONS, Encoder
from tercet.models.registry import register


@register("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertForPreTraining")
class Bert(Encoder):
    """Devlin et al. 2018."""

    paper = "https://arxiv.org/abs/1810.04805"
    tiny = {
        "model_type": "bert",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    variants = ({}, {"hidden_act": "gelu_new", "type_vocab_size": 1, "layer_norm_eps": 1e-5})
    prefixes = ("bert.",)
    renames = BERT
    ignored = ("embeddings.position_ids", "pooler", "cls", "classifier")
    masked_lm_renames = PREDICTIONS
    classifier_renames = {"pooler.dense": "dense", "classifier": "out"}
