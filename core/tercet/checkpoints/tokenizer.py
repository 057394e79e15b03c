"""`Tokenizer`: texts to token ids, exactly as the checkpoint's tokenizer.json says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from tercet.checkpoints import spans
from tercet.checkpoints.cuts import Side, cuttable, shortened
from tercet.checkpoints.spans import Token
from tercet.checkpoints.template import Ids, PairTruncation, Template, cut, kept_lengths
from tercet.checkpoints.words import Words, tokenized
from tercet.errors import CheckpointError, InvalidInputError
from tercet.inputs import check_text
from tercet.nn.batch import TokenSequence
from tercet.types import Truncate

_CHARACTERS_PER_TOKEN = 8  # of a first try; longer than those of almost all texts
_MARGIN = 64


class Tokenizer:
    """A checkpoint's tokeniser. Thread-safe; the interpreter lock is released while it reads texts.

    Wherever texts are given, `first` is the index of the first of them in the caller's list, so that errors can name
    the item.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special: Mapping[str, str] | None = None) -> None:
        """Wrap a tokeniser, whose own truncation and padding are switched off.

        Args:
            backend: it is changed, so nobody else may use it.
            special: role ("mask", "pad", "cls", "sep", "unk", "bos", "eos") → token.
        """
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special = dict(special or {})
        # Now, and not with the first text, for which an event loop may wait: it takes 10 ms.
        self._words = Words(backend) if Words.may_split(backend) else None

    @classmethod
    def from_directory(cls, directory: Path) -> Tokenizer:
        """Return the tokeniser of a checkpoint.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        config = {**_json(directory / "special_tokens_map.json"), **_json(directory / "tokenizer_config.json")}
        special = {
            key.removesuffix("_token"): _content(value) for key, value in config.items() if _is_token(key, value)
        }
        return cls(_backend(directory), special)

    # Vocabulary

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return int(max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)) + 1

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of all tokens that the checkpoint marks as special."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(index for index, token in added.items() if token.special)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, None when the vocabulary has no such token."""
        index: int | None = self._backend.token_to_id(token)
        return index

    def id_to_token(self, index: int) -> str | None:
        """Return the token of an id, None when there is none."""
        token: str | None = self._backend.id_to_token(index)
        return token

    def special_id(self, role: str) -> int | None:
        """Return the id of the special token in a role such as "mask" or "pad", None when it has none."""
        return self.token_to_id(self._special[role]) if role in self._special else None

    # Special tokens around texts

    @cached_property
    def single_template(self) -> Template:
        """The special tokens around one text."""
        return Template.probed(self._backend, 1)

    @cached_property
    def pair_template(self) -> Template:
        """The special tokens around two texts."""
        return Template.probed(self._backend, 2)

    # Token ids

    def content(
        self, texts: Sequence[str], *, limit: int | None = None, truncate: Truncate = "end", first: int = 0
    ) -> list[Ids]:
        """Return each text's token ids without special tokens, (n,) int64.

        Args:
            texts: any texts; special tokens spelt out in them are read as such, as the tokenizers library does.
            limit: of a text with more tokens than this, only some may be returned: more than `limit`, from the end that
                `truncate` leaves standing. So the cost of a text is bounded by the tokens that are wanted of it.
            truncate: which end will be cut.
            first: see the class.

        Raises:
            InvalidInputError: an item is no text, or holds a lone surrogate.
        """
        for index, text in enumerate(texts, first):
            if not isinstance(text, str) or not text.isascii():
                _check_text(text, f"item {index}")
        side: Side = "start" if truncate == "start" else "end"
        length = _MARGIN + _CHARACTERS_PER_TOKEN * limit if limit is not None else 0
        if limit is None or max(map(len, texts), default=0) <= 2 * length or side not in self._cuttable:
            return self._encode(texts)
        pieces = [shortened(text, length, side) for text in texts]
        ids = self._encode(pieces)
        while short := [i for i, text in enumerate(texts) if len(ids[i]) <= limit and len(pieces[i]) < len(text)]:
            length *= 4
            longer = [shortened(texts[i], length, side) for i in short]
            for i, piece, tokens in zip(short, longer, self._encode(longer), strict=True):
                pieces[i], ids[i] = piece, tokens
        return ids

    def singles(
        self, texts: Sequence[str], max_length: int, truncate: Truncate = "end", first: int = 0
    ) -> list[TokenSequence]:
        """Return one sequence of at most `max_length` tokens per text, special tokens included.

        Raises:
            InvalidInputError: as for `content`; or a text is too long under `truncate="none"`.
        """
        room = self.single_template.room(max_length)
        ids = self.content(texts, limit=room, truncate=truncate, first=first)
        return [self.single(text, max_length, truncate, first + i) for i, text in enumerate(ids)]

    def single(self, ids: Ids, max_length: int, truncate: Truncate = "end", index: int = 0) -> TokenSequence:
        """Return the sequence of one text's `content`, cut to `max_length`; `index` is the item's, for errors.

        Raises:
            InvalidInputError: it is too long under `truncate="none"`.
        """
        room = self.single_template.room(max_length)
        truncated = len(ids) > room
        _check_length(truncated, max_length, truncate, index)
        return self.single_template.fill(cut(ids, room, truncate), truncated=truncated)

    def pairs(
        self,
        query: str,
        documents: Sequence[str],
        max_length: int,
        strategy: PairTruncation = "longest_first",
        truncate: Truncate = "end",
        first: int = 0,
    ) -> list[TokenSequence]:
        """Return one sequence of at most `max_length` tokens per (query, document), special tokens included.

        Raises:
            InvalidInputError: as for `singles`.
        """
        room = max(self.pair_template.room(max_length), max_length * 3 // 4)
        _check_text(query, "the query")
        (query_ids,) = self.content([query], limit=room, truncate=truncate)
        ids = self.content(documents, limit=room, truncate=truncate, first=first)
        if strategy == "longest_first" and len(query_ids) > room:
            # Which of the two is longer decides who gets an odd token, so both must be counted to the end.
            (query_ids,) = self._encode([query])
            ids = [
                self._encode([text])[0] if len(part) > room else part for part, text in zip(ids, documents, strict=True)
            ]
        return [
            self.pair(query_ids, document, max_length, strategy, truncate, first + i) for i, document in enumerate(ids)
        ]

    def pair(
        self,
        query: Ids,
        document: Ids,
        max_length: int,
        strategy: PairTruncation = "longest_first",
        truncate: Truncate = "end",
        index: int = 0,
    ) -> TokenSequence:
        """Return the sequence of two texts' whole `content`, cut to `max_length`; see `template.kept_lengths`.

        Raises:
            InvalidInputError: they are too long under `truncate="none"`, or the query is under the strategy.
        """
        room = self.pair_template.room(max_length)
        lengths = len(query), len(document)
        kept = kept_lengths(lengths, room, strategy, max_length)
        _check_length(kept != lengths, max_length, truncate, index)
        texts = [cut(ids, length, truncate) for ids, length in zip((query, document), kept, strict=True)]
        return self.pair_template.fill(*texts, truncated=kept != lengths)

    # For people to look at

    def tokens(self, text: str, *, special: bool = True) -> list[Token]:
        """Return the tokens of a whole text and, if `special`, those around it; see `spans.tokens`."""
        return spans.tokens(self._backend, text, special)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text that token ids stand for; see `spans.decode`."""
        return spans.decode(self._backend, ids, skip_special)

    # Inside

    @cached_property
    def _cuttable(self) -> frozenset[Side]:
        return cuttable(self._backend)

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        return tokenized(self._backend, list(texts)) if self._words is None else self._words.encode(texts)


def _backend(directory: Path) -> tokenizers.Tokenizer:
    file = directory / "tokenizer.json"
    if not file.is_file():
        return _converted(directory)
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def _converted(directory: Path) -> tokenizers.Tokenizer:
    """Return the tokeniser that transformers makes of older files (vocab.txt, a sentencepiece model)."""
    if not [*directory.glob("vocab.*"), *directory.glob("*.model")]:  # transformers would invent an empty vocabulary
        raise CheckpointError(f"{directory} has no tokenizer.json, vocab.txt or sentencepiece model")
    from transformers import AutoTokenizer

    advice = "save the tokenizer as tokenizer.json (`PreTrainedTokenizerFast.save_pretrained`)"
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # any file may be missing or damaged, any package absent: transformers has no one class
        raise CheckpointError(
            f"{directory} has no tokenizer.json, nor another usable one; {advice}: {error}"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"{directory} has no tokenizer.json, and its tokenizer has no fast form; {advice}")
    backend: tokenizers.Tokenizer = tokenizer.backend_tokenizer
    return backend


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _is_token(key: str, value: object) -> bool:
    return key.endswith("_token") and (isinstance(value, str) or (isinstance(value, dict) and "content" in value))


def _content(value: Any) -> str:
    return str(value["content"] if isinstance(value, dict) else value)


def _check_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} is {type(text).__name__}, not a text (str)")
    check_text(text, name)


def _check_length(too_long: bool, max_length: int, truncate: Truncate, index: int) -> None:
    if too_long and truncate == "none":
        raise InvalidInputError(f"item {index} has more than {max_length} tokens; shorten it, or let it be truncated")
