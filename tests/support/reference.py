"""Tiny reference checkpoints: a family's published implementation with freshly drawn weights, saved to a directory.

An architecture that transformers lacks is looked up in `support.<model_type>_reference`, a module of ours that holds a
`PreTrainedModel` subclass under the architecture's name.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from tercet.checkpoints.weights import Source, load_weights
from tercet.models.registry import Backbone, Config
from tercet.nn import linear
from tercet.nn.batch import TokenSequence
from tercet.nn.packed import states_dtype

WEIGHT_STD = 0.3  # of matrices: attention is then far from uniform, and no layer saturates
# For half precision: at 0.3 the published ModernBERT itself, run in bfloat16, misses the bound (cosine 0.9989). At 0.2
# the published GTE, BERT and ModernBERT keep 0.9998 (three draws each; other families' own were not measured).
MILD_STD = 0.2


@dataclass(frozen=True)
class Reference:
    """A saved reference model and what it answers for one sequence at a time, so that padding plays no part.

    It answers in float64, so that what differs is our rounding and not its own.
    """

    model: transformers.PreTrainedModel
    directory: Path

    @cached_property
    def config(self) -> Config:
        """The configuration as a reader of the checkpoint finds it."""
        config: Config = json.loads((self.directory / "config.json").read_text())
        return config

    @property
    def weights(self) -> tuple[Path, ...]:
        """The checkpoint's safetensors files."""
        return tuple(sorted(self.directory.glob("*.safetensors")))

    @cached_property
    def exact(self) -> transformers.PreTrainedModel:
        """The model in float64."""
        return copy.deepcopy(self.model).double()

    @torch.inference_mode()
    def states(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return (T, H) last hidden states, the sequences end to end."""
        run = self.exact.base_model
        return torch.cat([run(**_inputs(run, s)).last_hidden_state[0].float() for s in sequences])

    @torch.inference_mode()
    def logits(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return (T, V) logits of a language model, (B, L) of a classifier."""
        return torch.cat([_flat(self.exact(**_inputs(self.exact, s)).logits).float() for s in sequences])


def _inputs(model: nn.Module, sequence: TokenSequence) -> dict[str, Tensor]:
    ids = torch.from_numpy(sequence.input_ids)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if sequence.token_types is not None and "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = torch.from_numpy(sequence.token_types)[None]
    return inputs


def _flat(logits: Tensor) -> Tensor:
    return logits[0] if logits.ndim == 3 else logits


def save_reference(
    architecture: str, settings: Mapping[str, Any], directory: Path, seed: int = 0, std: float = WEIGHT_STD
) -> Reference:
    """Return the architecture's reference model with weights drawn from `seed`, saved to `directory`."""
    options = dict(settings)
    if hasattr(transformers, architecture):
        kind = getattr(transformers, architecture)
        config = transformers.AutoConfig.for_model(**options)
    else:
        kind = getattr(import_module(f"support.{options.pop('model_type')}_reference"), architecture)
        config = kind.config_class(**options)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    draw_weights(model, seed, std)
    model.save_pretrained(directory)
    return Reference(model, directory)


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int, std: float = WEIGHT_STD) -> None:
    """Draw every parameter anew: matrices around 0, the weights of norms around 1, biases around 0 but not 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        spread = std if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + is_norm)


def draw_sequences(config: Config, lengths: Sequence[int], seed: int = 0) -> list[TokenSequence]:
    """Return random sequences of these lengths, without the padding token; a pair's token types where there are any."""
    rng = np.random.default_rng(seed)
    pad = config.get("pad_token_id")
    ids = np.array([i for i in range(config["vocab_size"]) if i != pad])
    has_types = (config.get("type_vocab_size") or 0) > 1
    sequences = []
    for n in lengths:
        types = (np.arange(n) >= rng.integers(0, n + 1)).astype(np.int64) if has_types else None
        sequences.append(TokenSequence(rng.choice(ids, n), token_types=types))
    return sequences


def load_family(
    family: type[Backbone],
    reference: Reference,
    *,
    head: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.ModuleDict:
    """Return our "backbone", and "head" for `head` "masked_lm" or "classifier", with the reference's weights."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {"backbone": family.from_config(reference.config)}
        if head is not None:
            modules["head"] = getattr(family, head)(reference.config)
    renames = {old: f"backbone.{new}" for old, new in family.renames.items()}
    if head is not None:
        renames |= {old: f"head.{new}" for old, new in getattr(family, f"{head}_renames").items()}
    tied = {"head.decoder.weight": "backbone.embeddings.words.weight"} if head == "masked_lm" else {}
    model = nn.ModuleDict(modules)
    source = Source(reference.weights, renames, family.prefixes, family.ignored, tied)
    load_weights(model, [source], torch.device(device), states_dtype(dtype))
    linear.prepare(model, dtype=dtype)
    return model.eval()
