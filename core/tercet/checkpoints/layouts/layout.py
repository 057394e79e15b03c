"""`Layout`: what a reader finds in a checkpoint beside the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tercet.checkpoints.spec import HeadSpec, MultiVectorSpec, StaticSparseSpec


@dataclass(frozen=True)
class Layout:
    """The outputs that a checkpoint's files describe.

    Attributes:
        heads: per output what computes it.
        prompts: what the layout declares beside `config_sentence_transformers.json`.
        query_sparse: the table that replaces the forward pass for queries.
        notes: what a user should know.
    """

    heads: Mapping[str, HeadSpec]
    prompts: Mapping[str, str] = field(default_factory=dict)
    query_sparse: StaticSparseSpec | None = None
    notes: tuple[str, ...] = ()


def token_states(hidden: int) -> MultiVectorSpec:
    """Return the multivector of a model without a late-interaction head: its normalised token states."""
    return MultiVectorSpec(hidden, trained=False)
