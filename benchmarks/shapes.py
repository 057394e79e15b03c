"""Models of true shape: what the published ones are made of, to be filled with drawn weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["dense", "sparse", "pairs"]


@dataclass(frozen=True, slots=True)
class Shape:
    """An architecture and its sizes.

    Attributes:
        kind: what the model answers with.
        architecture: of transformers. model_type: of its configuration.
        config: what is not the configuration's default; the vocabulary is always the bundled tokeniser's.
        pooling: of dense models. max_length: tokens that are read.
        texts: how many make a round of 10 to 20 s on two cores without AVX-512.
    """

    kind: Kind
    architecture: str
    model_type: str
    texts: int
    config: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "cls"
    max_length: int = 512


_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
_MARCO = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}

SHAPES = {
    "minilm": Shape("dense", "BertModel", "bert", 400, _MARCO, pooling="mean"),
    "bge-base": Shape("dense", "BertModel", "bert", 60),
    "bge-m3": Shape("dense", "XLMRobertaModel", "xlm-roberta", 20, _LARGE),
    "modernbert-base": Shape("dense", "ModernBertModel", "modernbert", 48, pooling="mean", max_length=8192),
    "modernbert-base-long": Shape("dense", "ModernBertModel", "modernbert", 2, pooling="mean", max_length=8192),
    "splade": Shape("sparse", "BertForMaskedLM", "bert", 48),
    "ms-marco-minilm": Shape("pairs", "BertForSequenceClassification", "bert", 4, {**_MARCO, "num_labels": 1}),
}
