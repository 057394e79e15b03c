"""Loading: which weights are read, what they must look like, and in which type they end up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.checkpoints import TEXTS, encode, in_full, save_checkpoint
from tercet.checkpoints.checkpoint import EncodeSettings
from tercet.checkpoints.load import build
from tercet.checkpoints.open import open_checkpoint
from tercet.errors import CheckpointError
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.heads import Dense
from tercet.types import Item

CPU = torch.device("cpu")


def test_the_decoder_shares_the_word_table_where_the_file_has_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForMaskedLM")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    assert "cls.predictions.decoder.weight" not in weights
    vocab = open_checkpoint(str(tmp_path)).spec.dims["sparse"]
    shared = in_full(encode(tmp_path, TEXTS, "sparse")["sparse"], vocab)
    table = weights["bert.embeddings.word_embeddings.weight"]
    save_file({**weights, "cls.predictions.decoder.weight": table.clone()}, file)
    assert np.array_equal(in_full(encode(tmp_path, TEXTS, "sparse")["sparse"], vocab), shared)
    save_file({**weights, "cls.predictions.decoder.weight": -table}, file)
    assert np.abs(in_full(encode(tmp_path, TEXTS, "sparse")["sparse"], vocab) - shared).max() > 0.1


def test_a_plain_encoder_leaves_the_language_model_head_aside(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForMaskedLM")
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in KINDS.items()]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.spec.outputs == ("dense", "multivector")
    names = [name for name, _ in checkpoint.load(CPU, torch.float32).named_parameters()]
    assert not any("masked_lm" in name for name in names)


KINDS = {"": "Transformer", "1_Pooling": "Pooling"}


def save_with_dense(directory: Path) -> Path:
    save_checkpoint(directory)
    kinds = {**KINDS, "2_Dense": "Dense"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    for folder, config in (("1_Pooling", {}), ("2_Dense", {"in_features": 32, "out_features": 6})):
        (directory / folder).mkdir()
        (directory / folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)
    drawn = {
        "linear.weight": torch.randn(6, 32, generator=generator),
        "linear.bias": torch.randn(6, generator=generator),
    }
    save_file(drawn, directory / "2_Dense" / "model.safetensors")
    return directory / "2_Dense" / "model.safetensors"


def test_what_follows_the_backbone_stays_in_float32(tmp_path: Path) -> None:
    save_with_dense(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    exact, half = (checkpoint.load(CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert {p.dtype for p in half.backbone.parameters()} == {torch.bfloat16}
    dense = next(module for module in half.modules() if isinstance(module, Dense))
    assert dense.linear.bias is not None and dense.linear.bias.dtype == torch.float32
    sequences = checkpoint.encode([Item(text) for text in TEXTS], EncodeSettings())
    batch = PackedBatch.of([s for s in sequences if isinstance(s, TokenSequence)])
    with torch.inference_mode():
        states = half.states(batch)
        vectors, expected = half(batch, ["dense"])["dense"], exact.heads["dense"](states.float(), batch)
    assert states.dtype == torch.bfloat16 and vectors.dtype == torch.float32
    rounded = expected.bfloat16().float()
    assert (vectors - expected).abs().max() <= 1e-6 < (rounded - expected).abs().max()


def test_the_size_is_known_before_loading(tmp_path: Path) -> None:
    save_with_dense(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    backbone = sum(
        tensor.numel() for name, tensor in load_file(tmp_path / "model.safetensors").items() if "pooler" not in name
    )
    dense = 6 * 32 + 6
    assert checkpoint.size_bytes(torch.float32) == 4 * (backbone + dense)
    assert checkpoint.size_bytes(torch.bfloat16) == 2 * backbone + 4 * dense
    assert all(parameter.is_meta for parameter in build(checkpoint.spec, torch.float32).parameters())


def test_side_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = save_with_dense(tmp_path)
    save_file({"linear.weight": torch.zeros(6, 31), "linear.bias": torch.zeros(6)}, file)
    with pytest.raises(CheckpointError, match=r"2_Dense.*stored as \(6, 31\), the configuration says \(6, 32\)"):
        open_checkpoint(str(tmp_path)).load(CPU, torch.float32)
    save_file({"linear.weight": torch.zeros(6, 32)}, file)
    with pytest.raises(CheckpointError, match=r"missing: heads\.dense\.steps\.0\.linear\.bias"):
        open_checkpoint(str(tmp_path)).load(CPU, torch.float32)


def test_rows_that_the_table_lacks_are_refused(tmp_path: Path) -> None:
    from tercet.checkpoints.weights import Source

    source = Source((), {}, rows={"answers.weight": (3, 9)})
    assert source.rows_of("other", torch.eye(4)).shape == (4, 4)
    with pytest.raises(CheckpointError, match="row 9 is wanted of answers"):
        source.rows_of("answers.weight", torch.eye(4))
    assert torch.equal(source.rows_of("answers.weight", torch.eye(10)), torch.eye(10)[[3, 9]])


@pytest.mark.slow
def test_opening_and_loading_need_no_transformers() -> None:
    program = (
        "import sys, torch; from tercet.checkpoints.open import open_checkpoint as o; c = o('all-MiniLM-L6-v2'); "
        "c.load(torch.device('cpu'), torch.float32); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("num_attention_heads", None, "lacks 'num_attention_heads'"),
        ("num_attention_heads", 0, "holds a wrong value"),
        ("intermediate_size", "wide", "holds a wrong value"),
        ("num_hidden_layers", 2.5, "holds a wrong value"),
        ("intermediate_size", -3, "holds a wrong value"),
    ],
)
def test_a_senseless_configuration_is_named(tmp_path: Path, key: str, value: object, reason: str) -> None:
    save_checkpoint(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config.pop(key) if value is None else config.update({key: value})
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config\.json of a BertModel {reason}"):
        open_checkpoint(str(tmp_path)).size_bytes(torch.float32)


@pytest.mark.slow
def test_nothing_is_drawn_at_random_and_the_compiler_stays_out(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    code = (
        "import sys, torch; from tercet.checkpoints.open import open_checkpoint; "
        f"open_checkpoint({str(tmp_path)!r}).load(torch.device('cpu'), torch.float32); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
