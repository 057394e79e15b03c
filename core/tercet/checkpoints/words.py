"""Words: a tokeniser's answers kept word by word, since texts are made of the same few thousand words.

See docs/adr/0015-words.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers

_MOST = 1 << 16  # words kept: about 12 MB
_LONGEST = 48  # characters of one; what is longer hardly comes again
_FEW, _NEW_OF = 64, 10  # so many are learned at a time, or one of so many that are read
_MARK, _LINE = "|", 64


class Words:
    """Token ids of texts, found by what lies between their spaces; the tokeniser is asked for what is not known yet.

    Thread-safe.

    Args:
        tokenizer: one that `may_split`.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, bytes] = {}  # ids as bytes, since nothing joins faster

    @staticmethod
    def may_split(tokenizer: tokenizers.Tokenizer) -> bool:
        """Whether the tokens of any text are those of its words, each by itself.

        BERT's rules are so: none looks over a space. An added token could, if it holds one.
        """
        added = tokenizer.get_added_tokens_decoder().values()
        return (
            isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and isinstance(tokenizer.model, models.WordPiece)
            and not any(" " in token.content for token in added)
        )

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return each text's token ids without special tokens, (n,) int64, not to be written to."""
        split = [text.split(" ") for text in texts]
        found = [self._found(words) for words in split]
        if None in found:
            self._learn([words for words, ids in zip(split, found, strict=True) if ids is None])
            found = [self._found(words) if ids is None else ids for words, ids in zip(split, found, strict=True)]
        left = iter(self._tokenized([text for text, ids in zip(texts, found, strict=True) if ids is None]))
        return [next(left) if ids is None else np.frombuffer(ids, np.int64) for ids in found]

    def _found(self, words: Sequence[str]) -> bytes | None:
        """Return the ids of a text's words, or None if one is not known."""
        try:
            return b"".join(map(self._known.__getitem__, words))
        except KeyError:
            return None

    def _learn(self, texts: Sequence[Sequence[str]]) -> None:
        """Keep the ids of words of these texts, of most if few are new; where there would be too many, of these alone.

        A word by itself takes the tokeniser two to three times as long as within a text. So texts of ever new words are
        left to it whole.
        """
        new = [word for word in set(chain.from_iterable(texts)) - self._known.keys() if len(word) <= _LONGEST]
        new = new[: max(_FEW, sum(map(len, texts)) // _NEW_OF)]
        learned = dict(zip(new, self._apart(new), strict=True))
        if len(self._known) + len(learned) > _MOST:
            self._known = learned
        else:
            self._known.update(learned)

    def _apart(self, words: Sequence[str]) -> list[bytes]:
        """Return the ids of each word, asked for in lines of many, which takes half as long as one by one."""
        if self._mark is None or any(_MARK in word for word in words):
            return [ids.tobytes() for ids in self._tokenized(words)]
        lines = [f" {_MARK} ".join(words[i : i + _LINE]) for i in range(0, len(words), _LINE)]
        found: list[bytes] = []
        for ids in self._tokenized(lines):
            together, marks = ids.tobytes(), (np.flatnonzero(ids == self._mark) * ids.itemsize).tolist()
            starts, ends = [0, *(mark + ids.itemsize for mark in marks)], [*marks, len(together)]
            found += [together[start:end] for start, end in zip(starts, ends, strict=True)]
        return found

    @cached_property
    def _mark(self) -> int | None:
        """The one token of the mark between words of a line, None where it has no token of its own."""
        (ids,) = self._tokenized([_MARK])
        return int(ids[0]) if len(ids) == 1 and self._tokenizer.id_to_token(int(ids[0])) == _MARK else None

    def _tokenized(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False) if texts else []
        return [np.array(encoding.ids, np.int64) for encoding in encodings]
