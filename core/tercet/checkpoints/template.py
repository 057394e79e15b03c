"""The special tokens around texts, and how texts that are too long for them are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray

from tercet.errors import CheckpointError, InvalidInputError
from tercet.nn.batch import TokenSequence
from tercet.types import Truncate

Ids = NDArray[np.int64]
PairTruncation = Literal["longest_first", "only_second", "query_three_quarters"]

# Pairs of unlike words, one of which every vocabulary can spell.
_PROBES = (("hello", "world"), ("a", "b"), ("0", "1"), (".", ","), ("你", "好"))


@dataclass(frozen=True)
class Template:
    """Special tokens around one text (before, after) or two (before, between, after).

    Attributes:
        ids: one array of special tokens for each place.
        types: their token types.
        text_types: the token type of each text's own tokens.
    """

    ids: tuple[Ids, ...]
    types: tuple[Ids, ...]
    text_types: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """How many special tokens there are."""
        return sum(map(len, self.ids))

    @cached_property
    def typed(self) -> bool:
        """Whether any token has another type than zero."""
        return any(self.text_types) or any(part.any() for part in self.types)

    def room(self, max_length: int) -> int:
        """Return how many tokens of the texts fit.

        Raises:
            InvalidInputError: not even the special tokens do.
        """
        if max_length < self.size:
            raise InvalidInputError(f"max_length {max_length} leaves no room for the {self.size} special tokens")
        return max_length - self.size

    def fill(self, *texts: Ids, truncated: bool = False) -> TokenSequence:
        """Return the sequence that holds the texts' tokens."""
        types = None
        if self.typed:
            filled = [np.full(len(text), kind, np.int64) for text, kind in zip(texts, self.text_types, strict=True)]
            types = _interleaved(self.types, filled)
        return TokenSequence(_interleaved(self.ids, texts), types, truncated=truncated)

    @classmethod
    def probed(cls, tokens: tokenizers.Tokenizer, texts: int) -> Template:
        """Return the template that a tokeniser's post-processor applies to one text or to two.

        Raises:
            CheckpointError: it does not keep the texts' tokens together and in order.
        """
        for words in _PROBES:
            bare = [tokens.encode(word, add_special_tokens=False).ids for word in words[:texts]]
            if all(bare):
                return cls._split(tokens.encode(words[0], pair=words[1] if texts == 2 else None), bare)
        raise CheckpointError("the tokenizer finds no token in any of the words that are tried")

    @classmethod
    def _split(cls, encoding: tokenizers.Encoding, bare: Sequence[Sequence[int]]) -> Template:
        ids, types = (np.array(column, np.int64) for column in (encoding.ids, encoding.type_ids))
        places = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
        cuts = np.split(places, np.cumsum([len(text) for text in bare])[:-1])
        for place, text in zip(cuts, bare, strict=True):
            if ids[place].tolist() != list(text) or np.ptp(place) != len(place) - 1:
                raise CheckpointError(f"the tokenizer's template changes the texts' tokens: {ids.tolist()} from {bare}")
        edges = [edge for place in cuts for edge in (place[0], place[-1] + 1)]
        return cls(
            ids=tuple(np.split(ids, edges)[::2]),
            types=tuple(np.split(types, edges)[::2]),
            text_types=tuple(int(types[place[0]]) for place in cuts),
        )


def _interleaved(specials: Sequence[Ids], texts: Sequence[Ids]) -> Ids:
    if len(texts) == 1:  # of which there are many; a list of parts takes longer to make than to join
        return np.concatenate((specials[0], texts[0], specials[1]))
    first, *rest = specials
    return np.concatenate([first, *(part for pair in zip(texts, rest, strict=True) for part in pair)])


def cut(ids: Ids, length: int, truncate: Truncate) -> Ids:
    """Return at most `length` of the tokens, from the end that `truncate` leaves standing."""
    if len(ids) <= length:
        return ids
    return ids[len(ids) - length :] if truncate == "start" else ids[:length]


def kept_lengths(lengths: tuple[int, int], room: int, strategy: PairTruncation, max_length: int) -> tuple[int, int]:
    """Return how many tokens of each text of a pair stay.

    "longest_first" is the rule of the tokenizers library; "only_second" leaves the query whole; "query_three_quarters"
    is FlagEmbedding's: the query may take three quarters of `max_length`, then only the second text is cut.

    Raises:
        InvalidInputError: the query leaves no room for a single token of the second text that it must cut.
    """
    if strategy == "longest_first":
        return _longest_first(*lengths, room)
    query, document = lengths
    if strategy == "query_three_quarters":
        query = min(query, max_length * 3 // 4)
    if query + document <= room:
        return query, document
    if query >= room:
        raise InvalidInputError(
            f"the query has {query} tokens, which leaves no room for the document within {max_length}; shorten it"
        )
    return query, room - query


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    if first + second <= room:
        return first, second
    half = room // 2
    if min(first, second) > half:  # both are cut; the longer one, or the second, gets the odd token
        return (room - half, half) if first > second else (half, room - half)
    return (first, room - first) if first <= second else (room - second, second)
