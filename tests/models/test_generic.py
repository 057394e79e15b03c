"""Architectures that only transformers has, through the one generic backbone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.reference import Reference, draw_sequences, save_reference
from tercet.checkpoints.load import load, size_bytes
from tercet.checkpoints.read import read_spec
from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.models.generic import Generic
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.model import Model
from tercet.nn.pooling import mean

LENGTHS = [5, 1, 40, 2, 17, 17, 33]
CPU = torch.device("cpu")

ALBERT = {
    "model_type": "albert",
    "vocab_size": 128,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
ERNIE = {key: value for key, value in ALBERT.items() if key != "embedding_size"} | {"model_type": "ernie"}
MOBILE = {**ALBERT, "model_type": "mobilebert", "embedding_size": 32, "intra_bottleneck_size": 32}
T5 = {"model_type": "t5", "vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
ENCODERS = [
    pytest.param("AlbertModel", ALBERT, id="albert"),
    pytest.param("ErnieModel", ERNIE, id="ernie"),
    pytest.param("T5EncoderModel", {**T5, "n_positions": 64}, id="t5"),
    pytest.param("MobileBertModel", MOBILE, id="mobilebert"),
]


def _opened(reference: Reference, dtype: torch.dtype = torch.float32) -> Model:
    return load(read_spec("tiny", reference.directory), CPU, dtype)


def _save(architecture: str, settings: dict[str, Any], directory: Path) -> Reference:
    reference = save_reference(architecture, settings, directory)
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    return reference


def _sequences(reference: Reference) -> list[TokenSequence]:
    return draw_sequences(reference.config, LENGTHS, seed=5)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize(("architecture", "settings"), ENCODERS)
def test_dense_equals_transformers(architecture: str, settings: dict[str, Any], tmp_path: Path) -> None:
    reference = _save(architecture, settings, tmp_path)
    sequences = _sequences(reference)
    batch, model = PackedBatch.of(sequences), _opened(reference)
    theirs = reference.states(sequences)
    ours = model(batch, ["dense", "multivector"])
    assert _difference(ours["dense"], mean(theirs, batch)) <= 1e-5
    assert _difference(ours["multivector"], torch.nn.functional.normalize(theirs, dim=-1)) <= 1e-5
    alone = torch.cat([model(PackedBatch.of([s]), ["dense"])["dense"] for s in sequences])
    assert _difference(ours["dense"], alone) <= 1e-6


@pytest.mark.parametrize(
    ("architecture", "settings", "ignores"), [("AlbertModel", ALBERT, True), ("MobileBertModel", MOBILE, False)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_trial_tells_who_looks_at_padding(
    architecture: str, settings: dict[str, Any], ignores: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    backbone = _opened(_save(architecture, settings, tmp_path), dtype).backbone
    assert isinstance(backbone, Generic)
    assert backbone.ignores_padding is ignores


def test_bfloat16_keeps_the_direction(tmp_path: Path) -> None:
    reference = _save("AlbertModel", ALBERT, tmp_path)
    sequences = _sequences(reference)
    batch = PackedBatch.of(sequences)
    ours = _opened(reference, torch.bfloat16)(batch, ["dense"])["dense"]
    assert torch.cosine_similarity(ours, mean(reference.states(sequences), batch)).min() >= 0.999


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_weights_are_not_rounded(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"AlbertModel runs by transformers.* use float32 or bfloat16"):
        _opened(_save("AlbertModel", ALBERT, tmp_path), dtype)


def test_tokens_past_the_attended_ones_are_not_seen(tmp_path: Path) -> None:
    reference = _save("AlbertModel", ALBERT, tmp_path)
    (sequence,) = draw_sequences(reference.config, [12])
    batch = PackedBatch.of([TokenSequence(sequence.input_ids, sequence.token_types, attended=7)])
    model = _opened(reference)
    with torch.inference_mode():
        ours = model.backbone(batch)
        ids, types = (torch.from_numpy(np.asarray(x))[None] for x in (sequence.input_ids, sequence.token_types))
        mask = (torch.arange(12) < 7).long()[None]
        theirs = reference.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state[0]
    assert _difference(ours, theirs) <= 1e-5


def test_splade_equals_transformers(tmp_path: Path) -> None:
    reference = _save("AlbertForMaskedLM", ALBERT, tmp_path)
    sequences = _sequences(reference)
    ours = _opened(reference)(PackedBatch.of(sequences), ["sparse", "dense"])
    theirs = torch.stack([reference.logits([s]).relu().log1p().amax(0) for s in sequences])
    assert theirs.max() > 0.5
    assert _difference(ours["sparse"], theirs) <= 1e-5
    assert _difference(ours["dense"], mean(reference.states(sequences), PackedBatch.of(sequences))) <= 1e-5


@pytest.mark.parametrize("labels", [1, 3])
def test_scores_equal_transformers(labels: int, tmp_path: Path) -> None:
    reference = _save("AlbertForSequenceClassification", {**ALBERT, "num_labels": labels}, tmp_path)
    sequences = _sequences(reference)
    ours = _opened(reference)(PackedBatch.of(sequences), ["score"])["score"]
    theirs = reference.logits(sequences)
    assert _difference(ours, theirs.sigmoid() if labels == 1 else theirs) <= 1e-5


def test_the_size_is_that_of_the_weights(tmp_path: Path) -> None:
    spec = read_spec("tiny", _save("AlbertModel", ALBERT, tmp_path).directory)
    stored = sum(tensor.nbytes for tensor in load_file(tmp_path / "model.safetensors").values())
    assert size_bytes(spec, torch.float32) == stored
    assert size_bytes(spec, torch.bfloat16) == stored // 2


def test_missing_weights_are_refused_and_never_drawn(tmp_path: Path) -> None:
    reference = _save("AlbertModel", ALBERT, tmp_path)
    (file,) = reference.weights
    stored = load_file(file)
    lost = next(name for name in stored if "attention" in name)
    save_file({name: tensor for name, tensor in stored.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"missing: {lost}"):
        _opened(reference)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["StrangerModel"]},
        {"architectures": ["StrangerModel"], "model_type": "stranger"},
        {"architectures": ["BartModel"], "model_type": "bart", "is_encoder_decoder": True},
    ],
    ids=["architecture", "model_type", "decoder"],
)
def test_what_nobody_can_build_is_refused_with_the_known_families(changes: dict[str, Any], tmp_path: Path) -> None:
    reference = _save("AlbertModel", ALBERT, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**reference.config, **changes}))
    with pytest.raises(UnsupportedModelError, match=rf"{changes['architectures'][0]}.*BertModel.*Qwen3Model"):
        _opened(reference)


@pytest.mark.slow
def test_families_do_without_transformers() -> None:
    program = (
        "import sys; from tercet.checkpoints import load; load.families(); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
