"""GTE as its authors publish it, the "new" architecture that transformers cannot build; one text a call."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from support.published import PublishedConfig, attended, heads, rotated


class NewConfig(PublishedConfig):
    model_type = "new"

    def __init__(self, num_labels: int = 2, **settings: Any) -> None:
        defaults = {
            "hidden_act": "gelu",
            "layer_norm_type": "layer_norm",
            "layer_norm_eps": 1e-12,
            "type_vocab_size": 1,
            "position_embedding_type": "rope",
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "logn_attention_scale": False,
            "logn_attention_clip1": False,
        }
        super().__init__(num_labels, **{**defaults, **settings})


def _norm(config: SimpleNamespace) -> nn.Module:
    kind = nn.LayerNorm if config.layer_norm_type == "layer_norm" else nn.RMSNorm
    return kind(config.hidden_size, config.layer_norm_eps)


def _frequencies(config: SimpleNamespace) -> Tensor:
    dim = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, dim, 2).float() / dim
    if config.rope_scaling is None:
        return 1.0 / (config.rope_theta**exponents)
    assert config.rope_scaling["type"] == "ntk"
    factor, mixed_b = config.rope_scaling["factor"], config.rope_scaling.get("mixed_b")
    if mixed_b is None:
        return 1.0 / ((config.rope_theta * factor) ** exponents) / factor ** (2 / dim)
    slope = math.log(factor) / (dim / 2) ** mixed_b
    return 1.0 / (config.rope_theta**exponents) * torch.exp(-slope * torch.arange(1, dim // 2 + 1).float() ** mixed_b)


class NewAttention(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(part, self.config.num_attention_heads) for part in self.qkv_proj(x).chunk(3, -1))
        q, k = (rotated(part, _frequencies(self.config)) for part in (q, k))
        if self.config.logn_attention_scale:
            scale = math.log(len(x)) / math.log(self.config.max_position_embeddings)
            q = q * (max(scale, 1.0) if self.config.logn_attention_clip1 else scale)
        return self.o_proj(attended(q, k, v))


class NewGatedMLP(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.up_gate_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.up_gate_proj(x).chunk(2, -1)
        return self.down_proj(nn.functional.gelu(gate) * up)


class NewLayer(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.attention, self.mlp = NewAttention(config), NewGatedMLP(config)
        self.attn_ln, self.mlp_ln = _norm(config), _norm(config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn_ln(x + self.attention(x))
        return self.mlp_ln(x + self.mlp(x))


class NewEmbeddings(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = _norm(config)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        x = self.word_embeddings(ids)
        return self.LayerNorm(x + self.token_type_embeddings(types) if hasattr(self, "token_type_embeddings") else x)


class NewPreTrainedModel(PreTrainedModel):
    config_class = NewConfig
    base_model_prefix = "new"


class NewModel(NewPreTrainedModel):
    def __init__(self, config: NewConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        settings = SimpleNamespace(**config.settings)
        self.embeddings = NewEmbeddings(settings)
        layers = nn.ModuleList(NewLayer(settings) for _ in range(settings.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        if add_pooling_layer:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(settings.hidden_size, settings.hidden_size)})
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        ids = input_ids[0]
        x = self.embeddings(ids, torch.zeros_like(ids) if token_type_ids is None else token_type_ids[0])
        for layer in self.encoder["layer"]:
            x = layer(x)
        return SimpleNamespace(last_hidden_state=x[None])


class NewLMPredictionHead(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = _norm(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)


class NewForMaskedLM(NewPreTrainedModel):
    _tied_weights_keys = {"lm_head.decoder.weight": "new.embeddings.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: NewConfig) -> None:
        super().__init__(config)
        self.new = NewModel(config)
        self.lm_head = NewLMPredictionHead(SimpleNamespace(**config.settings))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        x = self.new(input_ids, attention_mask, token_type_ids).last_hidden_state
        return SimpleNamespace(
            logits=self.lm_head.decoder(self.lm_head.norm(nn.functional.gelu(self.lm_head.dense(x))))
        )


class NewForSequenceClassification(NewPreTrainedModel):
    def __init__(self, config: NewConfig) -> None:
        super().__init__(config)
        self.new = NewModel(config, add_pooling_layer=True)
        self.classifier = nn.Linear(config.settings["hidden_size"], config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        first = self.new(input_ids, attention_mask, token_type_ids).last_hidden_state[:, 0]
        return SimpleNamespace(logits=self.classifier(torch.tanh(self.new.pooler["dense"](first))))
