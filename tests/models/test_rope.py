"""Rotary settings: both layouts of configurations, and transformers' own reading of them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.models.gemma3 import Gemma3
from tercet.models.gte import Gte
from tercet.models.modernbert import ModernBert
from tercet.models.nomic_bert import NomicBert
from tercet.models.qwen import Qwen2, Qwen3
from tercet.models.rope import rotary_from
from tercet.models.rotary_encoder import FULL, SLIDING, RotaryEncoder
from tercet.nn.rotary import DynamicRotary, Rotary, frequencies

LINEAR = {"rope_type": "linear", "factor": 8.0}
OLD_LAYOUTS: list[tuple[type[RotaryEncoder], dict[str, Any]]] = [
    (ModernBert, {"global_rope_theta": 3e5, "local_rope_theta": 2e4}),
    (ModernBert, {}),
    (Qwen2, {"rope_theta": 1e6}),
    (Qwen3, {"rope_theta": 5e6, "rope_scaling": {"type": "linear", "factor": 8.0}}),
    (Qwen3, {"rope_theta": 5e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    (Gemma3, {"rope_theta": 2e6, "rope_local_base_freq": 3e4, "rope_scaling": LINEAR}),
    (Gemma3, {}),
    (Gte, {"rope_theta": 2e4}),
    (NomicBert, {"rope_theta": 5e3}),
]


def _rotaries(family: type[RotaryEncoder], config: dict[str, Any]) -> dict[str, Rotary]:
    with torch.device("meta"):
        return family.from_config(config).rotaries


@pytest.mark.parametrize(("family", "keys"), OLD_LAYOUTS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_the_old_layout_means_what_transformers_makes_of_it(family: type[RotaryEncoder], keys: dict[str, Any]) -> None:
    old = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, **family.tiny, **keys}
    new = transformers.AutoConfig.for_model(**deepcopy({**family.tiny, **keys})).to_dict()
    assert "rope_parameters" in new
    assert "rope_theta" not in new
    for (kind, ours), theirs in zip(_rotaries(family, old).items(), _rotaries(family, new).values(), strict=True):
        assert torch.equal(ours.frequencies, theirs.frequencies), kind
        assert ours.magnitude == theirs.magnitude


def test_each_type_of_layer_has_its_own_settings() -> None:
    rotaries = _rotaries(
        Gemma3, {**Gemma3.tiny, "rope_theta": 2e6, "rope_local_base_freq": 3e4, "rope_scaling": LINEAR}
    )
    assert torch.equal(rotaries[FULL].frequencies, frequencies(16, 2e6) / 8)
    assert torch.equal(rotaries[SLIDING].frequencies, frequencies(16, 3e4))


def test_a_null_local_theta_of_modernbert_means_the_global_one() -> None:
    rotaries = _rotaries(ModernBert, {**ModernBert.tiny, "global_rope_theta": 3e5, "local_rope_theta": None})
    assert torch.equal(rotaries[SLIDING].frequencies, frequencies(8, 3e5))


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 128, "truncate": False},
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.5},
        {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7},
        {"rope_type": "linear", "factor": 3.0, "partial_rotary_factor": 0.5},
    ],
    ids=str,
)
def test_scaled_frequencies_equal_transformers(settings: dict[str, Any]) -> None:
    settings = {"rope_theta": 1e6, **settings}
    config = transformers.Qwen3Config(head_dim=64, max_position_embeddings=32768, rope_parameters=dict(settings))
    theirs, factor = ROPE_INIT_FUNCTIONS[settings["rope_type"]](config, "cpu")
    ours = rotary_from({"rope_parameters": settings, "max_position_embeddings": 32768}, 64, theta=1.0)
    torch.testing.assert_close(ours.frequencies, theirs, rtol=2e-7, atol=0)
    assert ours.magnitude == pytest.approx(factor)


@pytest.mark.parametrize("length", [100, 4096, 10_000])
def test_dynamic_frequencies_equal_transformers(length: int) -> None:
    settings = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config = transformers.Qwen3Config(head_dim=64, max_position_embeddings=4096, rope_parameters=dict(settings))
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=length)
    ours = rotary_from({"rope_parameters": settings, "max_position_embeddings": 4096}, 64, theta=1.0)
    assert isinstance(ours, DynamicRotary)
    torch.testing.assert_close(ours.frequencies_of(length), theirs, rtol=1e-6, atol=0)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'longrope'.*default, dynamic, linear, ntk, yarn"):
        rotary_from({"rope_scaling": None, "rope_parameters": {"rope_type": "longrope"}}, 64, theta=1e4)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(CheckpointError, match="'linear' need 'factor'"):
        rotary_from({}, 64, theta=1e4, scaling={"type": "linear"})
