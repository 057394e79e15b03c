"""NomicBERT as its authors publish it (remote code on the hub): its own names and options; one text a call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from support.published import PublishedConfig, attended, heads, rotated

ACTIVATIONS = {
    "swiglu": nn.functional.silu,
    "geglu": nn.functional.gelu,
    "glu": torch.sigmoid,
    "gelu": nn.functional.gelu,
}


class AuthorsConfig(PublishedConfig):
    model_type = "nomic_bert"

    def __init__(self, num_labels: int = 2, **settings: Any) -> None:
        defaults = {
            "vocab_size": 120,
            "pad_vocab_size_multiple": 64,
            "type_vocab_size": 2,
            "n_embd": 32,
            "n_head": 4,
            "n_layer": 2,
            "n_inner": 100,
            "n_positions": 512,
            "max_trained_positions": 64,
            "layer_norm_epsilon": 1e-12,
            "activation_function": "swiglu",
            "qkv_proj_bias": False,
            "mlp_fc1_bias": False,
            "mlp_fc2_bias": False,
            "prenorm": False,
            "causal": False,
            "rotary_emb_base": 1000,
            "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": False,
            "rotary_emb_scale_base": None,
            "rotary_scaling_factor": None,
        }
        super().__init__(num_labels, **{**defaults, **settings})


def _frequencies(config: SimpleNamespace, length: int) -> Tensor:
    dim = int(config.n_embd // config.n_head * config.rotary_emb_fraction)
    base, factor, trained = config.rotary_emb_base, config.rotary_scaling_factor, config.max_trained_positions
    if factor and length > trained:
        base = base * (factor * length / trained - (factor - 1)) ** (dim / (dim - 2))
    return 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))


class Attention(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.Wqkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_proj_bias)
        self.out_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.qkv_proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(part, self.config.n_head) for part in self.Wqkv(x).chunk(3, -1))
        frequencies = _frequencies(self.config, len(x))
        return self.out_proj(attended(rotated(q, frequencies), rotated(k, frequencies), v))


class GatedMLP(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        inner = (config.n_inner + 255) // 256 * 256
        self.fc11 = nn.Linear(config.n_embd, inner, bias=config.mlp_fc1_bias)
        self.fc12 = nn.Linear(config.n_embd, inner, bias=config.mlp_fc1_bias)
        self.fc2 = nn.Linear(inner, config.n_embd, bias=config.mlp_fc2_bias)
        self.activation = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc11(x) * self.activation(self.fc12(x)))


class PlainMLP(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.n_embd, config.n_inner, bias=config.mlp_fc1_bias)
        self.fc2 = nn.Linear(config.n_inner, config.n_embd, bias=config.mlp_fc2_bias)
        self.activation = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = GatedMLP(config) if config.activation_function.endswith("glu") else PlainMLP(config)
        self.norm1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.norm2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class NomicBertOfAuthors(PreTrainedModel):
    config_class = AuthorsConfig

    def __init__(self, config: AuthorsConfig) -> None:
        super().__init__(config)
        settings = SimpleNamespace(**config.settings)
        multiple = settings.pad_vocab_size_multiple
        rows = -(-settings.vocab_size // multiple) * multiple
        self.embeddings = nn.ModuleDict({"word_embeddings": nn.Embedding(rows, settings.n_embd)})
        if settings.type_vocab_size:
            self.embeddings["token_type_embeddings"] = nn.Embedding(settings.type_vocab_size, settings.n_embd)
        self.emb_ln = nn.LayerNorm(settings.n_embd, settings.layer_norm_epsilon)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Block(settings) for _ in range(settings.n_layer))})
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        ids = input_ids[0]
        x = self.embeddings["word_embeddings"](ids)
        if "token_type_embeddings" in self.embeddings:
            types = torch.zeros_like(ids) if token_type_ids is None else token_type_ids[0]
            x = x + self.embeddings["token_type_embeddings"](types)
        x = self.emb_ln(x)
        for block in self.encoder["layers"]:
            x = block(x)
        return SimpleNamespace(last_hidden_state=x[None])
