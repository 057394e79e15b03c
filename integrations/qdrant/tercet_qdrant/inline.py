"""`models.Document`, wherever it stands in a request, replaced by the vector that a model of ours makes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel
from qdrant_client import models

from tercet.connect import ConnectChoices, connect
from tercet.errors import InvalidInputError, UnsupportedOperationError
from tercet.types import OUTPUTS, Embeddings, EncodeChoices, Inference
from tercet_qdrant import vectors

# Held by requests, never holding a vector; payloads above all may be large.
_NOT_VECTORS = frozenset({"payload", "filter", "params", "id", "shard_key", "ids", "payloads"})
_NO_TEXT = (models.Image, models.InferenceObject)
_ENCODE_OPTIONS = ("dimensions", "prompt", "truncate")
_MODEL_OPTIONS = ("pool_factor", "top_k")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One vector: of which text, by which model, and how."""

    model: str
    output: str
    choices: tuple[tuple[str, Any], ...]
    text: str


@dataclass(slots=True)
class DocumentResolver:
    """Puts vectors in the place of documents.

    A document's `model` may end in `:dense`, `:sparse` or `:multivector`, or its options name the `output`; otherwise
    it is the model's first one. Other options: `dimensions`, `prompt`, `truncate`, `pool_factor`, `top_k`. These are
    the words that a Tercet server understands from a Qdrant server, so the same request works in both places.

    Args:
        inference: what encodes. connection: how to reach it.
    """

    inference: Inference | str
    connection: ConnectChoices = field(default_factory=ConnectChoices)

    def resolve(self, node: Any, is_query: bool) -> Any:
        """Return the request, or any part of one, with vectors in place of documents; the caller's stays as it is.

        Raises:
            UnsupportedOperationError: something else than text is to be embedded, or the model embeds nothing.
            InvalidInputError: an unknown option, or an output named twice and differently.
            TercetError: as `Engine.encode`.
        """
        documents = list(_documents(node))
        if not documents:
            return node
        encoder = connect(self.inference, **self.connection)
        wanted = [_wanted(encoder, document) for document in documents]
        made = _made(encoder, dict.fromkeys(wanted), is_query)
        in_order = iter([made[each] for each in wanted])
        return _replaced(node, lambda: next(in_order))


def _documents(node: Any) -> Iterator[models.Document]:
    """Yield the documents in the order in which `_replaced` meets them."""
    if isinstance(node, models.Document):
        yield node
    elif isinstance(node, _NO_TEXT):
        raise UnsupportedOperationError(f"a {type(node).__name__} is to be embedded; the models here read text")
    else:
        for _, child in _children(node):
            yield from _documents(child)


def _replaced(node: Any, vector: Callable[[], Any]) -> Any:
    """Return a copy with each document replaced; what holds none is not copied."""
    if isinstance(node, models.Document):
        return vector()
    changed = {}
    for key, child in _children(node):
        if (new := _replaced(child, vector)) is not child:
            changed[key] = new
    if not changed:
        return node
    if isinstance(node, BaseModel):
        return node.model_copy(update=changed)
    if isinstance(node, Mapping):
        return {**node, **changed}
    return [changed.get(i, child) for i, child in enumerate(node)]


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, models.SparseVector):
        return
    if isinstance(node, BaseModel):
        yield from ((name, child) for name, child in node if name not in _NOT_VECTORS)
    elif isinstance(node, Mapping):
        yield from node.items()
    elif isinstance(node, list | tuple) and node and not isinstance(node[0], float):
        yield from enumerate(node)


def _wanted(encoder: Inference, document: models.Document) -> _Wanted:
    options = _options(document)
    model, _, ending = document.model.rpartition(":")
    if ending not in OUTPUTS:
        model, ending = document.model, ""
    named = options.pop("output", None)
    if named is not None and named not in OUTPUTS:
        raise InvalidInputError(f"options.output {named!r} is not one of {', '.join(OUTPUTS)}")
    if ending and named not in (None, ending):
        raise InvalidInputError(f"the document's model {document.model!r} asks for {ending}, its options for {named}")
    output = ending or named or _first_output(encoder, model)
    return _Wanted(model, output, tuple(sorted(options.items())), document.text)


def _options(document: models.Document) -> dict[str, Any]:
    given = document.options or {}
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"{type(given).__name__} is for the BM25 inside Qdrant; with Tercet's, give options as a dict, or none"
        )
    known = ("output", *_ENCODE_OPTIONS, *_MODEL_OPTIONS)
    if unknown := [name for name in given if name not in known]:
        raise InvalidInputError(f"unknown option {unknown[0]!r} of a Document; known are {', '.join(known)}")
    return {name: value for name, value in given.items() if value is not None}


def _first_output(encoder: Inference, model: str) -> str:
    outputs = encoder.describe(model).outputs
    if not outputs:
        raise UnsupportedOperationError(f"{model!r} only scores; it embeds nothing")
    return outputs[0]


def _made(encoder: Inference, wanted: Mapping[_Wanted, Any], is_query: bool) -> dict[_Wanted, Any]:
    """Return the vectors; those of one model, output and way of making come from one call."""
    groups: defaultdict[tuple[Any, ...], list[_Wanted]] = defaultdict(list)
    for each in wanted:
        groups[each.model, each.output, each.choices].append(each)
    found: dict[_Wanted, Any] = {}
    for (model, output, choices), group in groups.items():
        texts = [each.text for each in group]
        embeddings: Embeddings = encoder.encode(model, texts, **_keywords(output, dict(choices), is_query))
        found.update(zip(group, vectors.rows(getattr(embeddings, output)), strict=True))
    return found


def _keywords(output: str, choices: dict[str, Any], is_query: bool) -> EncodeChoices:
    options = {} if is_query else {name: choices[name] for name in _MODEL_OPTIONS if name in choices}
    keywords = {name: choices[name] for name in _ENCODE_OPTIONS if name in choices}
    return cast(EncodeChoices, {"output_types": [output], "is_query": is_query, "options": options, **keywords})
