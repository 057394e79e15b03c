"""Whole tiny checkpoints, saved as the published tools save them, and what Tercet answers for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from support.reference import Reference, draw_weights, save_reference
from support.tiny_tokenizers import tiny
from tercet.checkpoints.checkpoint import EncodeSettings, PairSettings, Ready
from tercet.checkpoints.open import open_checkpoint
from tercet.models.registry import families
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.types import Item, SparseVector

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "",
    "Hello, world! (42)",
    "a sentence, with punctuation: commas; dots... and (brackets)!",
    "numbers 0 1 2 3 and words, words, words " * 20,
    "café 世界 😀",
]
_ROLES = {
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "unigram": {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>", "eos": "</s>"},
    "qwen": {"pad": "<pad>", "eos": "</s>"},
}  # fmt: skip


def save_checkpoint(
    directory: Path,
    architecture: str = "BertModel",
    *,
    tokenizer: tokenizers.Tokenizer | None = None,
    kind: str = "wordpiece",
    seed: int = 0,
    tokens: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Reference:
    """Save a model with drawn weights and its tokeniser, as transformers does.

    Args:
        kind: of tokeniser, a key of `tiny_tokenizers.KINDS`; `tokenizer` replaces it, keeping its roles.
        tokens: more of the tokeniser's settings.
        settings: more of the model's configuration, or all of it where the architecture is of no family.
    """
    made = tokenizer or tiny(kind)
    family = families().get(architecture)
    config = {**(family.tiny if family else {}), "vocab_size": made.get_vocab_size(), **settings}
    reference = save_reference(architecture, config, directory, seed)
    roles = {f"{role}_token": token for role, token in _ROLES[kind].items()}
    longest = reference.model.config.max_position_embeddings
    inputs = ["input_ids", *(["token_type_ids"] if kind == "wordpiece" else []), "attention_mask"]
    options = {**roles, "model_max_length": longest, "model_input_names": inputs, **(tokens or {})}
    PreTrainedTokenizerFast(tokenizer_object=made, **options).save_pretrained(directory)
    return reference


def with_words(tokenizer: tokenizers.Tokenizer, words: Sequence[str]) -> tokenizers.Tokenizer:
    """Return a WordPiece tokeniser whose vocabulary has more entries, none of which text is matched with as a whole."""
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {word: len(vocabulary) + i for i, word in enumerate(words)}
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def redraw(model: torch.nn.Module, seed: int = 1) -> None:
    """Draw the weights of a sentence-transformers model's own modules anew, all but the backbone's."""
    for i, module in enumerate(list(model)[1:]):  # type: ignore[call-overload]
        draw_weights(module, seed + i)


def encode(
    model: Path | str, items: Sequence[Item | str], *outputs: str, is_query: bool = False, **settings: Any
) -> dict[str, list[Any]]:
    """Return what Tercet gives for each output, all items in one batch where a forward pass is needed."""
    checkpoint = open_checkpoint(str(model))
    chosen: Any = outputs
    options = EncodeSettings(outputs=chosen, is_query=is_query, **settings)
    prepared = checkpoint.encode([Item(item) if isinstance(item, str) else item for item in items], options)
    if any(isinstance(each, Ready) for each in prepared):
        return {name: [each.rows[name] for each in prepared if isinstance(each, Ready)] for name in outputs}
    loaded = checkpoint.load(torch.device("cpu"), torch.float32)
    rows = loaded.rows(PackedBatch.of([s for s in prepared if isinstance(s, TokenSequence)]), outputs)
    return {name: list(rows[name]) for name in outputs}


def score(model: Path | str, query: str, documents: Sequence[str], **settings: Any) -> NDArray[np.float32]:
    """Return Tercet's scores, all pairs in one batch."""
    checkpoint = open_checkpoint(str(model))
    prepared = checkpoint.pairs(Item(query), [Item(text) for text in documents], PairSettings(**settings))
    loaded = checkpoint.load(torch.device("cpu"), torch.float32)
    batch = PackedBatch.of([s for s in prepared if isinstance(s, TokenSequence)])
    return np.asarray(loaded.rows(batch, ["score"])["score"])


def in_full(vectors: Sequence[SparseVector], dims: int) -> NDArray[np.float32]:
    """Return sparse vectors as (n, V), having checked that they are well formed."""
    full = np.zeros((len(vectors), dims), np.float32)
    for row, vector in zip(full, vectors, strict=True):
        assert vector.indices.dtype == np.uint32 and vector.values.dtype == np.float32
        assert (np.diff(vector.indices.astype(np.int64)) > 0).all() and (vector.values > 0).all()
        row[vector.indices] = vector.values
    return full


def rewrite(file: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file; None removes one."""
    content = {**(json.loads(file.read_text()) if file.exists() else {}), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
