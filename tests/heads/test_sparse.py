"""Lexical weights equal sentence-transformers' SparseEncoder, for SPLADE and for queries read off a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

from support.checkpoints import TEXTS, encode, in_full, save_checkpoint
from tercet.checkpoints.open import open_checkpoint
from tercet.errors import CheckpointError, UnsupportedOperationError

LANGUAGE_MODELS = {
    "BertForMaskedLM": ("wordpiece", {}),
    "DistilBertForMaskedLM": ("wordpiece", {}),
    "RobertaForMaskedLM": ("unigram", {"pad_token_id": 1, "tokens": {"model_max_length": 64}}),
    "ModernBertForMaskedLM": ("wordpiece", {}),
}


def assert_parity(directory: Path, texts: Sequence[str] = TEXTS, *, is_query: bool = False) -> None:
    model = SparseEncoder(str(directory), device="cpu")
    run = model.encode_query if is_query else model.encode_document
    theirs = run(list(texts), batch_size=1, convert_to_sparse_tensor=False).numpy()
    ours = in_full(encode(directory, texts, "sparse", is_query=is_query)["sparse"], theirs.shape[1])
    assert (theirs > 1e-3).sum() > 10
    assert np.array_equal(ours > 1e-3, theirs > 1e-3)
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize("architecture", LANGUAGE_MODELS)
def test_a_bare_language_model_gives_splade(architecture: str, tmp_path: Path) -> None:
    kind, settings = LANGUAGE_MODELS[architecture]
    save_checkpoint(tmp_path, architecture, kind=kind, **settings)
    assert_parity(tmp_path)
    assert open_checkpoint(str(tmp_path)).spec.outputs == ("dense", "sparse", "multivector")


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_every_pooling_and_activation(pooling: Any, activation: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "backbone", "BertForMaskedLM")
    transformer = Transformer(str(tmp_path / "backbone"), transformer_task="fill-mask")
    model = SparseEncoder(modules=[transformer, SpladePooling(pooling, activation)], device="cpu")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    assert_parity(tmp_path / "model")
    assert open_checkpoint(str(tmp_path / "model")).spec.outputs == ("sparse", "multivector")


def save_document_only(root: Path, seed: int = 0) -> Path:
    """Save a model whose queries are read off a table; return its directory."""
    save_checkpoint(root / "backbone", "BertForMaskedLM")
    transformer = Transformer(str(root / "backbone"), transformer_task="fill-mask")
    torch.manual_seed(seed)
    table = torch.rand(len(transformer.tokenizer)) * (torch.rand(len(transformer.tokenizer)) > 0.1)
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(transformer.tokenizer, weight=table)],
        document_modules=[transformer, SpladePooling("max", "log1p_relu")],
    )
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(root / "model"), create_model_card=False)
    return root / "model"


def test_queries_are_read_off_a_table(tmp_path: Path) -> None:
    directory = save_document_only(tmp_path)
    assert_parity(directory, is_query=False)
    assert_parity(directory, is_query=True)
    with pytest.raises(UnsupportedOperationError, match="off a table"):
        encode(directory, ["hello"], "sparse", "multivector", is_query=True)


def test_the_table_may_be_a_json_file_of_tokens(tmp_path: Path) -> None:
    directory = save_document_only(tmp_path)
    folder = directory / "query_0_SparseStaticEmbedding"
    (folder / "idf.json").write_text(json.dumps({"hello": 2.5, "world": 0.5}))
    (folder / "config.json").write_text(json.dumps({"path": "idf.json"}))
    (vector,) = encode(directory, ["Hello fox, hello world"], "sparse", is_query=True)["sparse"]
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    expected = sorted([(tokenizer["hello"], 2.5), (tokenizer["world"], 0.5)])
    assert list(zip(vector.indices.tolist(), vector.values.tolist(), strict=True)) == expected

    (folder / "idf.json").write_text(json.dumps({"no such token": 1.0}))
    with pytest.raises(CheckpointError, match="no such token"):
        encode(directory, ["hello"], "sparse", is_query=True)


def test_a_table_of_another_size_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    directory = save_document_only(tmp_path)
    save_file({"weight": torch.ones(7)}, directory / "query_0_SparseStaticEmbedding" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"\(7,\)"):
        encode(directory, ["hello"], "sparse", is_query=True)
