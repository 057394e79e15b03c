"""Tiny checkpoints on disk: real files with random weights, for whatever needs a model but not its quality."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from support.checkpoints import save_checkpoint
from support.reference import Reference, save_reference
from support.tiny_tokenizers import wordpiece
from tercet.models.bert import Bert
from tercet.nn.batch import TokenSequence

_M3_WIDTH = 32


def save_bert(directory: Path, seed: int = 0, architecture: str = "BertModel", **settings: Any) -> Reference:
    """Save a BERT with weights drawn from `seed` and a WordPiece tokeniser; return its reference implementation."""
    tokenizer = wordpiece()
    config = {**Bert.tiny, "vocab_size": tokenizer.get_vocab_size(), **settings}
    reference = save_reference(architecture, config, directory, seed)
    tokenizer.save(str(directory / "tokenizer.json"))
    return reference


def save_m3(directory: Path, *, with_modules: bool = True) -> Reference:
    """Save a model as BGE-M3's authors do."""
    reference = save_checkpoint(
        directory, "XLMRobertaModel", kind="unigram", pad_token_id=1, tokens={"model_max_length": 64}
    )
    generator = torch.Generator().manual_seed(3)
    for name, out in (("sparse_linear.pt", 1), ("colbert_linear.pt", _M3_WIDTH)):
        drawn = {
            "weight": torch.randn(out, _M3_WIDTH, generator=generator),
            "bias": torch.randn(out, generator=generator),
        }
        torch.save(drawn, directory / name)
    if with_modules:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
        (directory / "modules.json").write_text(json.dumps(modules))
        (directory / "1_Pooling").mkdir()
        flags = {
            "word_embedding_dimension": _M3_WIDTH,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        }
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    return reference


def mean_vectors(reference: Reference, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, H) mean-pooled states by the reference implementation, texts one at a time, cut to its positions."""
    tokenizer = Tokenizer.from_file(str(reference.directory / "tokenizer.json"))  # training twice may differ
    tokenizer.enable_truncation(reference.config["max_position_embeddings"])
    rows = []
    for text in texts:
        ids = np.array(tokenizer.encode(text).ids, np.int64)
        rows.append(reference.states([TokenSequence(ids)]).mean(0).numpy())
    return np.stack(rows)
