"""Stanford's ColBERT checkpoints: a BERT, `linear.weight` among its weights, `artifact.metadata` beside them."""

from __future__ import annotations

import string

from tercet.checkpoints.files import Files, Settings, read_settings
from tercet.checkpoints.layouts.colbert import QUERY_LENGTH, Expansion, query_rules, skip_ids
from tercet.checkpoints.layouts.layout import Layout
from tercet.checkpoints.spec import DenseLayer, MultiVectorSpec, NormalizeStep, TokenRules
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import CheckpointError

ARCHITECTURE = "HF_ColBERT"
_BACKBONES = {
    "bert": "BertModel",
    "deberta-v2": "DebertaV2Model",
    "electra": "ElectraModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
_DIMS = 128  # of ColBERTv2, where no metadata say otherwise


def backbone(files: Files) -> str:
    """Return the architecture below the projection."""
    return files.config.one_of("model_type", _BACKBONES, "bert")


def read(files: Files) -> Layout:
    """Return the multivector output that the metadata describe."""
    metadata = read_settings(files.folder / "artifact.metadata")
    tokenizer = files.tokenizer
    dims = metadata.typed("dim", int, _DIMS)
    expansion = Expansion(
        length=metadata.typed("query_maxlen", int, QUERY_LENGTH),
        attend=metadata.typed("attend_to_mask_tokens", bool, False),
    )
    skipped = _punctuation(tokenizer) if metadata.typed("mask_punctuation", bool, True) else ()
    document_length = metadata.typed("doc_maxlen", int) if "doc_maxlen" in metadata else None
    head = MultiVectorSpec(
        dims=dims,
        steps=(DenseLayer(None, files.hidden_size, dims, bias=False), NormalizeStep()),
        query=query_rules(tokenizer, None, expansion, _marker(files, metadata, "query_token_id", "[unused0]")),
        document=TokenRules(document_length, _marker(files, metadata, "doc_token_id", "[unused1]"), skipped=skipped),
    )
    return Layout({"multivector": head})


def _marker(files: Files, metadata: Settings, key: str, default: str) -> int:
    token = metadata.typed(key, str, default)
    index = files.tokenizer.token_to_id(token)
    if index is None:
        raise CheckpointError(f"{metadata.path} has {key!r}: {token!r}, which the tokenizer's vocabulary lacks")
    return index


def _punctuation(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids of punctuation marks, both as written and as the tokeniser spells them."""
    spelt = (int(ids[0]) for ids in tokenizer.content(list(string.punctuation)) if len(ids))
    unknown = tokenizer.special_id("unk")
    return tuple(sorted({*skip_ids(tokenizer, string.punctuation), *(i for i in spelt if i != unknown)}))
