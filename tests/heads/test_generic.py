"""Every head on an architecture without a family of its own, which transformers runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

from support.checkpoints import TEXTS, encode, in_full, save_checkpoint, score
from tercet.checkpoints.open import open_checkpoint

ALBERT: dict[str, Any] = {
    "model_type": "albert",
    "hidden_size": 32,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def test_dense_and_sparse(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "AlbertForMaskedLM", **ALBERT)
    ours = encode(tmp_path, TEXTS, "dense", "sparse", "multivector")
    vectors = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, batch_size=1)
    assert np.abs(np.stack(ours["dense"]) - vectors).max() <= 1e-5
    encoder = SparseEncoder(str(tmp_path), device="cpu")
    weights = encoder.encode(TEXTS, batch_size=1, convert_to_sparse_tensor=False).numpy()
    assert np.abs(in_full(ours["sparse"], weights.shape[1]) - weights).max() <= 1e-4
    assert all(np.allclose(np.linalg.norm(each, axis=1), 1, atol=1e-5) for each in ours["multivector"])


def test_score(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "AlbertForSequenceClassification", num_labels=1, **ALBERT)
    theirs = CrossEncoder(str(tmp_path), device="cpu").predict([("a fox", text) for text in TEXTS], batch_size=1)
    assert theirs.std() > 1e-3
    assert np.abs(score(tmp_path, "a fox", TEXTS)[:, 0] - theirs).max() <= 1e-4


def test_the_size_is_that_of_the_stored_tensors(tmp_path: Path) -> None:
    reference = save_checkpoint(tmp_path, "AlbertModel", **ALBERT)
    stored = sum(parameter.numel() for parameter in reference.model.parameters())
    assert open_checkpoint(str(tmp_path)).size_bytes(torch.bfloat16) == 2 * stored
