"""ColBERT's markers, expansion and skipped tokens; Khattab & Zaharia 2020, arXiv:2004.12832."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tercet.checkpoints.spec import TokenRules
from tercet.nn.batch import TokenSequence


def marked(sequence: TokenSequence, place: int, rules: TokenRules) -> TokenSequence:
    """Return the sequence with the side's marker inserted at `place`, behind the leading special tokens."""
    if rules.marker is None:
        return sequence
    types = sequence.token_types
    return replace(
        sequence,
        input_ids=np.insert(sequence.input_ids, place, rules.marker),
        token_types=None if types is None else np.insert(types, place, 0),
    )


def expanded(sequence: TokenSequence, rules: TokenRules, limit: int) -> TokenSequence:
    """Return the sequence filled up to the side's least length or `limit`; rules say whether that is attended to."""
    missing = min(rules.expand_to, limit) - len(sequence)
    if missing <= 0:
        return sequence
    assert rules.expansion is not None
    types = sequence.token_types
    return replace(
        sequence,
        input_ids=np.append(sequence.input_ids, np.full(missing, rules.expansion)),
        token_types=None if types is None else np.append(types, np.zeros(missing, np.int64)),
        attended=None if rules.attend_to_expansion else len(sequence),
    )


def without_skipped(sequence: TokenSequence, rules: TokenRules) -> TokenSequence:
    """Return the sequence with the vectors of the side's skipped tokens left out."""
    if not rules.skipped:
        return sequence
    return replace(sequence, kept=~np.isin(sequence.input_ids, rules.skipped))
