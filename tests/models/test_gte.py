"""GTE's options that transformers does not know, and the names that transformers gives its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from support.parity import states_difference
from support.reference import save_reference
from tercet.errors import UnsupportedModelError
from tercet.models.gte import Gte

LENGTHS = [5, 1, 200, 17, 33, 32]

OPTIONS: list[dict[str, Any]] = [
    {"rope_scaling": {"type": "ntk", "factor": 8.0}, "type_vocab_size": 1},
    {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.75}},
    {"logn_attention_scale": True, "max_position_embeddings": 32},
    {"logn_attention_scale": True, "logn_attention_clip1": True, "max_position_embeddings": 32},
    {"layer_norm_type": "rms_norm", "rope_theta": 2e4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_the_authors_equal_the_reference(options: dict[str, Any], tmp_path: Path) -> None:
    assert states_difference(Gte, save_reference("NewModel", {**Gte.tiny, **options}, tmp_path), LENGTHS) <= 1e-5


def test_transformers_own_names_load_too(tmp_path: Path) -> None:
    reference = save_reference("GteModel", Gte.tiny, tmp_path)
    names = {name: tensor.contiguous() for name, tensor in reference.model.state_dict().items()}
    assert "layers.0.mlp.gate_proj.weight" in names
    (file,) = reference.weights
    save_file(names, file)
    assert states_difference(Gte, reference, LENGTHS) <= 1e-5


def test_learned_positions_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="position_embedding_type must be rope"):
        Gte.from_config({**Gte.tiny, "position_embedding_type": "absolute"})
