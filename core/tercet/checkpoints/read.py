"""`read_spec`: a checkpoint's files to what they say, `ModelSpec`. Reads JSON and headers, never weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.checkpoints.catalog import catalog
from tercet.checkpoints.files import Files, read_settings
from tercet.checkpoints.layouts import bge_m3, colbert, cross_encoder, dense, plain, router, splade, stanford, yes_no
from tercet.checkpoints.layouts.layout import Layout
from tercet.checkpoints.layouts.modules import Module, find, read_modules
from tercet.checkpoints.spec import HeadSpec, ModelSpec, MultiVectorSpec
from tercet.checkpoints.weights import size_bytes
from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.models.registry import families

_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_FLOAT32_BYTES = 4


def read_files(model: str, root: Path) -> tuple[Files, Sequence[Module], Module | None]:
    """Return a checkpoint's files, the modules that documents go through, and the queries' table, if there is one.

    Raises:
        CheckpointError, UnsupportedModelError: `modules.json` is malformed, or lists what Tercet does not know.
    """
    modules: Sequence[Module] = ()
    table = None
    if listed := read_modules(root):
        modules, table = router.split(listed)
        if modules[0].kind != "Transformer":
            raise UnsupportedModelError(
                f"{root / 'modules.json'} begins with {modules[0].type!r}; known first modules: Transformer, Router"
            )
    folder = modules[0].folder if modules else root
    return Files(model, root, folder), modules, table


def read_spec(model: str, root: Path, revision: str | None = None) -> ModelSpec:
    """Return what the files in `root` say, under the id `model`.

    Raises:
        CheckpointError: files are missing, damaged or contradict each other.
        UnsupportedModelError: they describe what Tercet does not know; the message lists what it does.
    """
    return spec_of(*read_files(model, root), revision)


def spec_of(files: Files, modules: Sequence[Module], table: Module | None, revision: str | None) -> ModelSpec:
    """Return what the files say; the arguments are those of `read_files`."""
    layout = _layout(files, modules)
    heads = {**layout.heads, **_without_known_dense(bge_m3.heads(files), modules)}
    prompts = _prompts(files, layout)
    weights = files.weights()
    return ModelSpec(
        id=files.id,
        revision=revision,
        directory=files.folder,
        config=dict(files.config),
        architecture=_backbone(files),
        heads=heads,
        max_length=_max_length(files),
        weights=weights,
        size_bytes=sum(size_bytes(weights).values()) * _FLOAT32_BYTES,
        prompts=prompts.texts,
        query_prompt=prompts.query,
        document_prompt=prompts.document,
        query_sparse=router.static_table(table, files.vocab_size) if table else None,
        lower_case=files.transformer.typed("do_lower_case", bool, False),
        token_types="token_type_ids" in files.model_inputs,
        pair_truncation=catalog().pair_truncation.get(files.id, "longest_first"),
        notes=(*layout.notes, *_notes(heads)),
    )


def _layout(files: Files, modules: Sequence[Module]) -> Layout:
    """Return what the modules describe, by the one that is the heart of each layout."""
    if not modules:
        return plain.read(files)
    if colbert.is_colbert(files, modules):
        return colbert.read(files, modules)
    for kind, read in (("SpladePooling", splade.read), ("LogitScore", yes_no.read), ("Pooling", dense.read)):
        if find(modules, kind):
            return read(files, modules)
    if len(modules) == 1 and files.architecture.endswith("ForSequenceClassification"):
        return cross_encoder.read(files)
    listed = ", ".join(module.kind for module in modules)
    raise UnsupportedModelError(
        f"{files.root / 'modules.json'} lists {listed} for {files.architecture}; known layouts: Transformer with "
        "Pooling, SpladePooling, LogitScore, a token-level Dense (ColBERT), or alone with a …ForSequenceClassification"
    )


def _backbone(files: Files) -> str:
    """Return the architecture that runs: what the configuration names, or what lies below its projection."""
    return stanford.backbone(files) if files.architecture == stanford.ARCHITECTURE else files.architecture


def _without_known_dense(heads: Mapping[str, HeadSpec], modules: Sequence[Module]) -> Mapping[str, HeadSpec]:
    """Return the heads, the dense one left out where `modules.json` describes it."""
    return {name: head for name, head in heads.items() if name != "dense" or not modules}


@dataclass(frozen=True)
class _Prompts:
    """Prompts by name, and the names of those that queries and documents take by default."""

    texts: Mapping[str, str] = field(default_factory=dict)
    query: str | None = None
    document: str | None = None


def _prompts(files: Files, layout: Layout) -> _Prompts:
    """Return the files' prompts, or the catalogue's where the files have none."""
    settings = files.sentence_transformers
    stated = {**settings.typed("prompts", dict, {}), **layout.prompts}
    if wrong := [name for name, text in stated.items() if not isinstance(text, str | None)]:
        raise CheckpointError(f"{settings.path}: the prompt {wrong[0]!r} is {stated[wrong[0]]!r}, not a text")
    texts = {name: text for name, text in stated.items() if text}
    if not texts and (known := catalog().prompts.get(files.id)):
        texts = {name: text for name, text in (("query", known.query), ("document", known.document)) if text}
    default = settings.get("default_prompt_name")
    if default is not None and default not in stated:
        raise CheckpointError(
            f"{settings.path} has 'default_prompt_name': {default!r}; known prompts: {', '.join(stated) or 'none'}"
        )
    if "score" in layout.heads and "dense" not in layout.heads:  # a reranker's pairs have one prompt
        return _Prompts(texts, default if default in texts else None)
    return _Prompts(texts, _side(texts, _QUERY_PROMPTS, default), _side(texts, _DOCUMENT_PROMPTS, default))


def _side(texts: Mapping[str, str], names: Sequence[str], default: Any) -> str | None:
    """Return the side's own prompt, else the default one unless that is the other side's."""
    own = next((name for name in names if name in texts), None)
    if own is not None or default in (*_QUERY_PROMPTS, *_DOCUMENT_PROMPTS):
        return own
    return default if default in texts else None


def _max_length(files: Files) -> int:
    """Return the shortest of what the files state and what the position scheme can number."""
    tokenizer = read_settings(files.folder / "tokenizer_config.json")
    stated = files.transformer.get("max_seq_length", tokenizer.get("model_max_length"))
    family = families().get(_backbone(files))
    positions = family.max_positions(files.config) if family else files.config.get("max_position_embeddings")
    limits = [limit for limit in (stated, positions) if isinstance(limit, int | float) and limit > 0]
    if not limits:
        raise CheckpointError(f"{files.folder} states no maximum length (max_seq_length, model_max_length)")
    return int(min(limits))


def _notes(heads: Mapping[str, HeadSpec]) -> tuple[str, ...]:
    multivector = heads.get("multivector")
    if isinstance(multivector, MultiVectorSpec) and not multivector.trained:
        return ("multivector is the normalised token states: the model has no late-interaction head",)
    return ()
