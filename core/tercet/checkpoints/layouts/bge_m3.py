"""BGE-M3: `sparse_linear.pt` and `colbert_linear.pt` beside an encoder give it three outputs; arXiv:2402.03216."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tercet.checkpoints.files import Files
from tercet.checkpoints.spec import DenseLayer, DenseSpec, HeadSpec, LexicalSpec, MultiVectorSpec, NormalizeStep

_UNWEIGHTED = ("cls", "eos", "sep", "pad", "unk", "bos")  # roles of tokens that carry no lexical weight


def heads(files: Files) -> Mapping[str, HeadSpec]:
    """Return the outputs that the side files add, none where there are no such files."""
    sparse, colbert = (_side_file(files, name) for name in ("sparse_linear.pt", "colbert_linear.pt"))
    found: dict[str, HeadSpec] = {}
    if sparse or colbert:
        found["dense"] = DenseSpec(("cls",), (NormalizeStep(),), files.hidden_size)
    if sparse:
        found["sparse"] = LexicalSpec(sparse, files.vocab_size, _unweighted(files))
    if colbert:
        width = files.hidden_size
        steps = (DenseLayer(colbert, width, width), NormalizeStep())
        found["multivector"] = MultiVectorSpec(width, steps, drop_first=True, mean_over_query=True)
    return found


def _side_file(files: Files, name: str) -> Path | None:
    return next((folder / name for folder in (files.root, files.folder) if (folder / name).is_file()), None)


def _unweighted(files: Files) -> tuple[int, ...]:
    ids = (files.tokenizer.special_id(role) for role in _UNWEIGHTED)
    return tuple(sorted({i for i in ids if i is not None}))
