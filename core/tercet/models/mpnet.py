"""MPNet: BERT without token types, with a bias on attention scores for each bucket of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tercet.models.encoder import CLASSIFICATION_HEAD, EMBEDDINGS, FEED_FORWARD, LM_HEAD, Encoder, qkv
from tercet.models.registry import Config, register
from tercet.nn.attention import Bias
from tercet.nn.batch import PackedBatch
from tercet.nn.distance_bias import DistanceBias

BUCKETS, EXACT, FARTHEST = 32, 8, 128  # half the buckets look each way; the first EXACT of them hold one distance each


@register("MPNetModel", "MPNetForMaskedLM", "MPNetForSequenceClassification")
class MPNet(Encoder):
    """Song et al. 2020; the buckets are T5's, Raffel et al. 2020, arXiv:1910.10683."""

    paper = "https://arxiv.org/abs/2004.09297"
    tiny = {
        "model_type": "mpnet",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 202,
        "layer_norm_eps": 1e-5,
    }
    prefixes = ("mpnet.",)
    renames = {
        **EMBEDDINGS,
        **qkv("encoder.layer.*.attention.attn", "q", "k", "v"),
        "encoder.layer.*.attention.attn.o": "layers.*.attention.out",
        "encoder.layer.*.attention.LayerNorm": "layers.*.attention_norm",
        **FEED_FORWARD,
        "encoder.relative_attention_bias": "distance_bias",
    }
    ignored = ("embeddings.position_ids", "pooler", "lm_head", "classifier")
    masked_lm_renames = LM_HEAD
    classifier_renames = CLASSIFICATION_HEAD
    lm_activation = "gelu"

    def __init__(self, config: Config) -> None:
        super().__init__({**config, "type_vocab_size": 0})
        self.distance_bias = nn.Embedding(BUCKETS, config["num_attention_heads"])
        self.longest = self.max_positions(config)
        self._tables: list[Tensor] = []  # of two threads that make one at once, a program may read either's

    def bias(self, batch: PackedBatch) -> Bias:
        """Return the bias of each distance, shared by all layers; on a CPU its table is made once."""
        if self.distance_bias.weight.is_cuda:
            return self._bias()
        if not self._tables:
            self._tables.append(self._bias().table)
        return DistanceBias(self._tables[0], self.longest)

    def _bias(self) -> DistanceBias:
        weight = self.distance_bias.weight
        distances = torch.arange(self.longest - 1, -self.longest, -1, device=weight.device)
        return DistanceBias.of(self.distance_bias(bucket(distances)).T)

    @classmethod
    def first_position(cls, config: Config) -> int:
        """Return the row after the padding token's, which is 1 whatever the configuration says."""
        return 2


def bucket(distance: Tensor) -> Tensor:
    """Return the bucket of each distance from query to key: exact when short, then logarithmic up to FARTHEST."""
    half = BUCKETS // 2
    size = distance.abs()
    steps = torch.log(size.float() / EXACT) / math.log(FARTHEST / EXACT) * (half - EXACT)
    far = (EXACT + steps.long()).clamp(max=half - 1)
    return torch.where(size < EXACT, size, far) + half * (distance > 0)
