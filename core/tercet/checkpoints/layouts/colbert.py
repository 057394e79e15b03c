"""Transformer + token-level Dense: late interaction as sentence-transformers and PyLate save it."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.checkpoints.files import Files, Settings
from tercet.checkpoints.layouts.layout import Layout
from tercet.checkpoints.layouts.modules import Module, check_order, find
from tercet.checkpoints.layouts.steps import read_steps
from tercet.checkpoints.spec import MultiVectorSpec, NormalizeStep, TokenRules
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import CheckpointError

QUERY_LENGTH = 32  # of the ColBERT paper, where no file names another
_TYPES = ("ColBERT", "MultiVectorEncoder")
_STRATEGIES = {"fixed": "fixed", "min": "min"}
_PYLATE_KEYS = frozenset(
    [
        "query_length",
        "document_length",
        "query_expansion",
        "do_query_expansion",
        "attend_to_expansion_tokens",
        "attend_to_mask_tokens",
        "query_prefix",
        "document_prefix",
        "skiplist_words",
    ]
)


def is_colbert(files: Files, modules: Sequence[Module]) -> bool:
    """Whether the checkpoint's files describe late interaction."""
    settings = files.sentence_transformers
    late = settings.get("model_type") in _TYPES or "query_prefix" in settings
    return late or find(modules, "MultiVectorMask") is not None


def read(files: Files, modules: Sequence[Module]) -> Layout:
    """Return the multivector output that the modules describe."""
    check_order(modules, ("MultiVectorMask", "Dense", "LayerNorm", "Normalize", "Dropout"), files.root / "modules.json")
    mask = find(modules, "MultiVectorMask")
    steps, dims = read_steps(modules[1:], files.hidden_size)
    if mask is None and NormalizeStep() not in steps:  # PyLate normalises outside of its modules
        steps = (*steps, NormalizeStep())
    settings = files.sentence_transformers
    skipped, sides = _skipped(files, mask)
    lengths = {side: _length(files, f"{side}_length") for side in ("query", "document")}
    query, document = _marked(files, "query"), _marked(files, "document")
    head = MultiVectorSpec(
        dims=dims,
        steps=steps,
        query=query_rules(
            files.tokenizer, lengths["query"], _expansion(files), query.marker, skipped * ("query" in sides)
        ),
        document=TokenRules(lengths["document"], document.marker, skipped=skipped * ("document" in sides)),
        mean_over_query=settings.get("similarity_fn_name") == "meanmaxsim",
    )
    return Layout({"multivector": head}, prompts={"query": query.prompt, "document": document.prompt})


@dataclass(frozen=True)
class Expansion:
    """How queries are filled up: to `length` tokens; a `fixed` one also cuts them there."""

    length: int
    attend: bool = False
    fixed: bool = True
    token: str | None = None


def query_rules(
    tokenizer: Tokenizer,
    max_length: int | None,
    expansion: Expansion | None,
    marker: int | None,
    skipped: tuple[int, ...] = (),
) -> TokenRules:
    """Return the rules of a side that may be expanded."""
    if expansion is None:
        return TokenRules(max_length, marker, skipped=skipped)
    longest = expansion.length if expansion.fixed else max_length and max(max_length, expansion.length)
    filling = _filling(tokenizer, expansion)
    return TokenRules(longest, marker, expansion.length, filling, expansion.attend, skipped)


def skip_ids(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of the words that are single tokens."""
    unknown = tokenizer.special_id("unk")
    ids = (tokenizer.token_to_id(word) for word in words)
    return tuple(sorted({i for i in ids if i is not None and i != unknown}))


def _filling(tokenizer: Tokenizer, expansion: Expansion) -> int:
    if expansion.token is not None:
        found = tokenizer.token_to_id(expansion.token)
    else:
        mask = tokenizer.special_id("mask")
        found = mask if mask is not None else tokenizer.special_id("eos")
    if found is None:
        wanted = repr(expansion.token) if expansion.token else "mask or end token"
        raise CheckpointError(f"queries are to be expanded, but the vocabulary has no {wanted}")
    return found


def _length(files: Files, key: str) -> int | None:
    for settings in (files.transformer, files.sentence_transformers):
        if key in settings:
            return settings.typed(key, int)
    return None


def _expansion(files: Files) -> Expansion | None:
    """Return what the Transformer module says, else PyLate's settings of the whole model."""
    own, whole = files.transformer, files.sentence_transformers
    for settings in (own, whole):
        if "query_expansion" in settings.raw:
            stated = settings.typed("query_expansion", dict, {})
            return _stated(Settings(settings.path, stated)) if stated else None
    if not _PYLATE_KEYS & whole.raw.keys() or whole.get("do_query_expansion") is False:
        return None
    attend = whole.get("attend_to_expansion_tokens", whole.get("attend_to_mask_tokens", False))
    return Expansion(whole.typed("query_length", int, QUERY_LENGTH), bool(attend))


def _stated(settings: Settings) -> Expansion:
    return Expansion(
        length=settings.typed("length", int),
        attend=settings.typed("attend", bool, False),
        fixed=settings.one_of("strategy", _STRATEGIES) == "fixed",
        token=settings.get("token"),
    )


def _skipped(files: Files, mask: Module | None) -> tuple[tuple[int, ...], Sequence[str]]:
    """Return the token ids that are dropped and the sides that drop them."""
    if mask is None:
        words: Any = files.sentence_transformers.typed("skiplist_words", list, list(string.punctuation))
        return skip_ids(files.tokenizer, words), ("document",)
    if mask.config.get("keep_only_token_ids"):
        raise mask.config.unknown("keep_only_token_ids", "null; it selects image patches, which Tercet does not read")
    sides = mask.config.get("skiplist_tasks", ["document"])
    return skip_ids(files.tokenizer, mask.config.typed("skiplist_words", list, [])), sides


@dataclass(frozen=True)
class _Marked:
    """A side's marker token, if its prefix is one, and the text that stands in front of the item's."""

    marker: int | None
    prompt: str


def _marked(files: Files, side: str) -> _Marked:
    """Return PyLate's prefix of a side: a token where the vocabulary has it, else text in front of the prompt."""
    settings = files.sentence_transformers
    prompts: Mapping[str, Any] = settings.typed("prompts", dict, {})
    prefix = settings.typed(f"{side}_prefix", str, "")
    prompt = str(prompts.get(side) or "").removeprefix(prefix)
    if not prefix.strip():
        return _Marked(None, prefix + prompt)
    word, _, rest = prefix.partition(" ")
    for token, remainder in ((prefix, ""), (word, rest)):
        if (index := files.tokenizer.token_to_id(token)) is not None:
            return _Marked(index, remainder.lstrip() + prompt)
    return _Marked(None, prefix + prompt)
