"""Tokens for people to look at: which characters each stands for, and back from ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers

from tercet.errors import InvalidInputError
from tercet.inputs import check_text


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text.

    Attributes:
        text: the characters that it stands for; the token's own name for those that the tokeniser adds.
        special: whether the checkpoint marks it so.
        start, stop: its characters in the text; None for those that the tokeniser adds.
    """

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


def tokens(tokenizer: tokenizers.Tokenizer, text: str, special: bool) -> list[Token]:
    """Return the tokens of a whole text, and those that stand around it if `special`.

    Raises:
        InvalidInputError: the text holds a lone surrogate.
    """
    check_text(text, "the text")
    encoding = tokenizer.encode(text, add_special_tokens=special)
    marked = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    columns = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [
        Token(index, name, True) if added else Token(index, text[start:stop], index in marked, start, stop)
        for index, name, added, (start, stop) in columns
    ]


def decode(tokenizer: tokenizers.Tokenizer, ids: Sequence[int], skip_special: bool) -> str:
    """Return the text that token ids stand for, special ones left out if `skip_special`.

    Raises:
        InvalidInputError: an id is outside the vocabulary.
    """
    size = tokenizer.get_vocab_size()
    for index in ids:
        if not 0 <= index < size:
            raise InvalidInputError(f"{index} is no token id; the vocabulary has ids from 0 to {size - 1}")
    text: str = tokenizer.decode(list(ids), skip_special_tokens=skip_special)
    return text
