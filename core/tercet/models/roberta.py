"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT whose positions start after the padding token's id."""

from __future__ import annotations

from tercet.models.encoder import BERT, CLASSIFICATION_HEAD, LM_HEAD, Encoder
from tercet.models.registry import Config, register


@register(
    *(f"{name}{task}" for name in ("Roberta", "XLMRoberta", "Camembert") for task in ("Model", "ForMaskedLM")),
    *(f"{name}ForSequenceClassification" for name in ("Roberta", "XLMRoberta", "Camembert")),
)
class Roberta(Encoder):
    """Liu et al. 2019; Conneau et al. 2020; Martin et al. 2020."""

    paper = "https://arxiv.org/abs/1907.11692"
    tiny = {
        "model_type": "roberta",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    }
    variants = ({}, {"pad_token_id": 5, "type_vocab_size": 2})
    prefixes = ("roberta.",)
    renames = BERT
    ignored = ("embeddings.position_ids", "pooler", "lm_head", "classifier")
    masked_lm_renames = LM_HEAD
    classifier_renames = CLASSIFICATION_HEAD
    lm_activation = "gelu"

    @classmethod
    def first_position(cls, config: Config) -> int:
        """Return the row after the padding token's; the rows before are never read."""
        return int(config.get("pad_token_id", 1)) + 1
