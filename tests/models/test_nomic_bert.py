"""NomicBERT in its authors' layout, and the two ways to name its weights in transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from support.parity import states_difference
from support.reference import save_reference
from tercet.errors import UnsupportedModelError
from tercet.models.nomic_bert import NomicBert

LENGTHS = [5, 1, 200, 17, 65, 64]

OPTIONS: list[dict[str, Any]] = [
    {},
    {"activation_function": "geglu", "type_vocab_size": 0},
    {"activation_function": "glu", "mlp_fc1_bias": True, "mlp_fc2_bias": True},
    {"activation_function": "gelu", "qkv_proj_bias": True, "mlp_fc1_bias": True},
    {"rotary_emb_fraction": 0.5},
    {"rotary_scaling_factor": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_authors_layout_equals_its_reference(options: dict[str, Any], tmp_path: Path) -> None:
    settings = {"model_type": "nomic_bert", **options}
    assert states_difference(NomicBert, save_reference("NomicBertOfAuthors", settings, tmp_path), LENGTHS) <= 1e-5


def test_transformers_own_names_load_too(tmp_path: Path) -> None:
    reference = save_reference("NomicBertModel", NomicBert.tiny, tmp_path)
    names = {name: tensor.contiguous() for name, tensor in reference.model.state_dict().items()}
    assert "layers.0.self_attn.q_proj.weight" in names
    (file,) = reference.weights
    save_file(names, file)
    assert states_difference(NomicBert, reference, LENGTHS) <= 1e-5


def test_the_longest_text_is_what_the_authors_say() -> None:
    assert NomicBert.max_positions({"n_positions": 8192, "max_position_embeddings": 2048}) == 8192
    assert NomicBert.max_positions({"max_position_embeddings": 2048}) == 2048


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_experts", 8, "mixture of experts"),
        ("prenorm", True, "prenorm=True"),
        ("rotary_emb_interleaved", True, "rotary_emb_interleaved=True"),
        ("rotary_emb_fraction", 0.0, "rotary_emb_fraction must be > 0"),
    ],
)
def test_what_no_published_model_uses_is_refused(option: str, value: Any, message: str, tmp_path: Path) -> None:
    config = save_reference("NomicBertOfAuthors", {"model_type": "nomic_bert"}, tmp_path).config
    with pytest.raises(UnsupportedModelError, match=message):
        NomicBert.from_config({**config, "moe_every_n_layers": 2, option: value})
