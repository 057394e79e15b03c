"""(query, document) pairs as rerankers read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from tercet.checkpoints.checkpoint import PairSettings
from tercet.checkpoints.spec import ModelSpec, PairTemplate
from tercet.checkpoints.template import Ids, PairTruncation, cut
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import InvalidInputError
from tercet.nn.batch import TokenSequence


def cross_pairs(
    tokenizer: Tokenizer, spec: ModelSpec, query: str, documents: Sequence[str], settings: PairSettings, first: int
) -> list[TokenSequence]:
    """Return query and document of each pair between the tokeniser's special tokens; the query is tokenised once.

    Raises:
        InvalidInputError: an instruction is given, or a pair is too long under `truncate="none"`.
    """
    if settings.instruction is not None:
        raise InvalidInputError(f"{spec.id} is a cross-encoder and takes no instruction; leave it out")
    strategy: PairTruncation = next(
        (known for known in get_args(PairTruncation) if known == spec.pair_truncation), "longest_first"
    )
    pairs = tokenizer.pairs(query, documents, spec.max_length, strategy, settings.truncate, first)
    return pairs if spec.token_types else [replace(pair, token_types=None) for pair in pairs]


def template_pairs(
    tokenizer: Tokenizer,
    spec: ModelSpec,
    template: PairTemplate,
    query: str,
    documents: Sequence[str],
    settings: PairSettings,
    first: int,
) -> list[TokenSequence]:
    """Return each pair in its template, which stays whole: an over-long document is cut.

    Raises:
        InvalidInputError: the template has no place for the instruction, the query leaves no room for a document, or a
            pair is too long under `truncate="none"`.
    """
    before = opening(template, spec.id, settings.instruction) + query + template.before_document
    end, opened = tokenizer.content([template.end, before])
    room = spec.max_length - len(end)
    if len(opened) >= room:
        raise InvalidInputError(
            f"the query leaves no room for the document within {spec.max_length} tokens; shorten it"
        )
    texts = [before + document for document in documents]
    limit = None if settings.truncate == "start" else room
    sequences = []
    for i, ids in enumerate(tokenizer.content(texts, limit=limit, first=first), first):
        if len(ids) > room and settings.truncate == "none":
            raise InvalidInputError(
                f"item {i} has more than {spec.max_length} tokens; shorten it, or let it be truncated"
            )
        sequences.append(_closed(ids, len(opened), end, room, settings))
    return sequences


def opening(template: PairTemplate, model: str, instruction: str | None) -> str:
    """Return what stands before the query.

    Raises:
        InvalidInputError: an instruction is given, and the template has no place for one.
    """
    if template.instruction is None and instruction is not None:
        raise InvalidInputError(f"the template of {model} has no place for an instruction; leave it out")
    return template.start + (instruction or template.instruction or "") + template.before_query


def _closed(ids: Ids, opened: int, end: Ids, room: int, settings: PairSettings) -> TokenSequence:
    truncated = len(ids) > room
    if truncated:
        # The last token of the opening may have merged with the document's first, so the cut begins before it.
        whole = opened - 1
        ids = np.concatenate([ids[:whole], cut(ids[whole:], room - whole, settings.truncate)])
    return TokenSequence(np.concatenate([ids, end]), truncated=truncated)
