"""DeBERTa-v2 and -v3: attention by content and by relative position, each seeing the other."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from tercet.errors import UnsupportedModelError
from tercet.models.encoder import (
    ATTENTION_OUTPUT,
    EMBEDDINGS,
    FEED_FORWARD,
    PREDICTIONS,
    Encoder,
    embedding_size,
    norm_from,
    qkv,
)
from tercet.models.registry import Config, num_labels, register
from tercet.nn.activations import ACTIVATIONS, activation_name
from tercet.nn.batch import PackedBatch
from tercet.nn.disentangled import DisentangledAttention, Distances, bucket
from tercet.nn.heads import Classifier
from tercet.nn.layers import FeedForward, PostNormBlock
from tercet.nn.linear import Linear


class Convolution(nn.Module):
    """norm(x + act(conv(embedded))), the convolution over neighbouring tokens that v2 adds to its first layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, kernel = config["hidden_size"], config["conv_kernel_size"]
        groups = config.get("conv_groups", 1)
        self.conv = nn.Conv1d(hidden, hidden, kernel, padding=(kernel - 1) // 2, groups=groups)
        self.norm = norm_from(config)
        self.activation = activation_name(config.get("conv_act", "tanh"))

    def forward(self, x: Tensor, embedded: Tensor, batch: PackedBatch) -> Tensor:
        """Return (T, H)."""
        blocks = [embedded[r.start : r.stop].view(r.count, r.length, -1).mT for r in batch.runs]
        mixed = torch.cat([self.conv(block).mT.flatten(0, 1) for block in blocks])
        out: Tensor = self.norm(x + ACTIVATIONS[self.activation](mixed))
        return out


@register("DebertaV2Model", "DebertaV2ForMaskedLM", "DebertaV2ForSequenceClassification")
class DebertaV2(Encoder):
    """He et al. 2021; v3 (arXiv:2111.09543) has the same forward pass."""

    paper = "https://arxiv.org/abs/2006.03654"
    tiny = {
        "model_type": "deberta-v2",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 96,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    }
    variants = (
        {},
        {"conv_kernel_size": 3, "conv_act": "gelu", "legacy": False},
        {"position_buckets": -1, "max_relative_positions": 20, "norm_rel_ebd": "none", "pos_att_type": "c2p|p2c"},
        {"embedding_size": 24, "position_biased_input": True, "type_vocab_size": 2},
    )
    prefixes = ("deberta.",)
    renames = {
        **EMBEDDINGS,
        "embeddings.LayerNorm": "embeddings.norm.norm",
        "embeddings.embed_proj": "embeddings.norm.projection",
        **qkv("encoder.layer.*.attention.self", "query_proj", "key_proj", "value_proj"),
        **ATTENTION_OUTPUT,
        **FEED_FORWARD,
        "encoder.rel_embeddings": "distances",
        "encoder.LayerNorm": "distances_norm",
        "encoder.conv.conv": "convolution.conv",
        "encoder.conv.LayerNorm": "convolution.norm",
    }
    ignored = (
        "embeddings.position_ids",
        "embeddings.position_embeddings",
        "pooler",
        "classifier",
        "cls",
        "lm_predictions",
        "mask_predictions",
    )
    masked_lm_renames = {
        **PREDICTIONS,
        "lm_predictions.lm_head.dense": "dense",
        "lm_predictions.lm_head.LayerNorm": "norm",
        "lm_predictions.lm_head.bias": "decoder.bias",
    }
    classifier_renames = {"pooler.dense": "dense", "classifier": "out"}

    def __init__(self, config: Config) -> None:
        check_attention(config)
        super().__init__(_as_bert(config))
        self.farthest = config.get("max_relative_positions", -1)
        if self.farthest < 1:
            self.farthest = config["max_position_embeddings"]
        self.buckets = config.get("position_buckets", -1)
        self.span = self.buckets if self.buckets > 0 else self.farthest
        self.distances = nn.Embedding(2 * self.span, config["hidden_size"])
        normed = "layer_norm" in config.get("norm_rel_ebd", "none")
        self.distances_norm = norm_from(config) if normed else nn.Identity()
        self.convolution = Convolution(config) if config.get("conv_kernel_size", 0) > 0 else None

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H) last hidden states."""
        embedded: Tensor = self.embeddings(batch)
        x = embedded
        distances = self.distances_in(batch)
        for i, layer in enumerate(self.layers):
            attention = layer.get_submodule("attention")
            assert isinstance(attention, DisentangledAttention)
            x = layer(x, batch, bias=attention.bias(distances))
            if i == 0 and self.convolution is not None:
                x = self.convolution(x, embedded, batch)
        return x

    def distances_in(self, batch: PackedBatch) -> Distances:
        """Return the relative positions between the tokens of the longest sequence."""
        steps = torch.arange(1 - batch.max_seqlen, batch.max_seqlen)  # on the host: its ends become slice bounds
        if self.buckets > 0:
            steps = bucket(steps, self.buckets, self.farthest)
        rows = (steps + self.span).clamp(0, 2 * self.span - 1)
        low, high = int(rows[0]), int(rows[-1])
        vectors: Tensor = self.distances_norm(self.distances.weight[low : high + 1])
        return Distances(vectors, (rows - low).to(vectors.device, non_blocking=True))

    @classmethod
    def embeddings_norm(cls, config: Config) -> nn.Sequential:
        """Return the projection from the word table's width, if it is another, then the norm."""
        steps = nn.Sequential(OrderedDict[str, nn.Module](norm=norm_from(config)))
        width, hidden = embedding_size(config), config["hidden_size"]
        if width != hidden:
            steps = nn.Sequential(OrderedDict(projection=Linear(width, hidden, bias=False), **steps._modules))
        return steps

    @classmethod
    def layer_from(cls, config: Config) -> PostNormBlock:
        """Return one layer."""
        hidden = config["hidden_size"]
        ffn = FeedForward(hidden, config["intermediate_size"], activation_name(config["hidden_act"]))
        attention = DisentangledAttention(hidden, config["num_attention_heads"])
        return PostNormBlock(attention, ffn, partial(norm_from, config))

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the context pooler and the output layer."""
        activation = activation_name(config.get("pooler_hidden_act", "gelu"))
        return Classifier(config["hidden_size"], num_labels(config), activation=activation)


def check_attention(config: Config) -> None:
    """Raise `UnsupportedModelError` unless attention is disentangled both ways and shares content's projections."""
    kinds = config.get("pos_att_type") or ()
    kinds = set(kinds.lower().split("|") if isinstance(kinds, str) else kinds)
    if not (config.get("relative_attention") and config.get("share_att_key") and kinds == {"c2p", "p2c"}):
        raise UnsupportedModelError(
            f"DeBERTa-v2 runs with relative_attention, share_att_key and pos_att_type c2p|p2c, as its published "
            f"checkpoints have; config.json says {config.get('relative_attention')}, {config.get('share_att_key')} "
            f"and {'|'.join(sorted(kinds)) or 'none'}"
        )


def _as_bert(config: Config) -> Config:
    """Return the configuration with BERT's meaning: no rows for positions or token types that are not read."""
    positions = config["max_position_embeddings"] if config.get("position_biased_input", True) else 0
    types = config.get("type_vocab_size", 0)
    return {
        **config,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": config.get("layer_norm_eps", 1e-7),
    }
