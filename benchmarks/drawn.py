"""Checkpoints of the shapes with drawn weights, as transformers and sentence-transformers write them; built once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cache import built, bundled
from shapes import SHAPES, Shape

_SPREAD = 2.0  # of query and key projections, others having 1: attention is then far from uniform
# Bias of a language model's logits, which are drawn around 0 at about 1: few terms are above it, as in SPLADE.
_RARE = -2.5
_ROLES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def checkpoint(name: str, seed: int = 0) -> Path:
    """Return the folder of a shape's checkpoint, another for each seed; shapes alike but for texts share one."""
    shape = replace(SHAPES[name], texts=0)
    described = hashlib.sha256(f"{shape} {seed} {_SPREAD} {_RARE}".encode()).hexdigest()[:8]
    return built(f"{shape.architecture}-{described}", partial(_build, shape, seed))


def _build(shape: Shape, seed: int, folder: Path) -> None:
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(bundled() / "tokenizer.json"),
        model_max_length=shape.max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if shape.model_type == "bert" else []), "attention_mask"],
        **{f"{role}_token": token for role, token in _ROLES.items()},
    )
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    roles = {"pad": "pad", "cls": "cls", "sep": "sep", "bos": "cls", "eos": "sep"}
    ids = {f"{role}_token_id": tokenizer.convert_tokens_to_ids(_ROLES[name]) for role, name in roles.items()}
    config = transformers.AutoConfig.for_model(
        shape.model_type, **{**ids, "vocab_size": tokenizer.backend_tokenizer.get_vocab_size(), **shape.config}
    )
    model = getattr(transformers, shape.architecture)(config).eval()
    _draw(model, seed)
    plain = folder / "plain" if shape.kind != "pairs" else folder
    if shape.kind == "pairs":  # as the published rerankers have it: the score is the logit
        model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    _save_modules(shape, plain, folder)


def _draw(model: Any, seed: int) -> None:
    """Draw every matrix anew, so that what a product gives is about as large as what it takes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                sharper = _SPREAD if any(part in name for part in ("query", "key", "Wqkv")) else 1.0
                parameter.normal_(std=sharper * parameter.shape[1] ** -0.5, generator=generator)
            elif name == "cls.predictions.bias":
                parameter.fill_(_RARE)


def _save_modules(shape: Shape, plain: Path, folder: Path) -> None:
    """Write what sentence-transformers adds to a plain checkpoint, and take that away."""
    import shutil

    import sentence_transformers as st
    from sentence_transformers.sentence_transformer import modules as dense
    from sentence_transformers.sparse_encoder import modules as sparse

    if shape.kind == "dense":
        transformer = dense.Transformer(str(plain), max_seq_length=shape.max_length)
        pooling = dense.Pooling(transformer.get_embedding_dimension(), shape.pooling)
        model: Any = st.SentenceTransformer(modules=[transformer, pooling, dense.Normalize()], device="cpu")
    elif shape.kind == "sparse":
        masked = sparse.Transformer(str(plain), max_seq_length=shape.max_length, transformer_task="fill-mask")
        model = st.SparseEncoder(modules=[masked, sparse.SpladePooling("max")], device="cpu")
    else:
        return
    model.save_pretrained(str(folder), create_model_card=False)
    shutil.rmtree(plain)
