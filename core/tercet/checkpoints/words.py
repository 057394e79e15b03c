"""Words: a tokeniser's answers kept word by word, since texts are made of the same few thousand words.

See docs/adr/0015-words.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, compress, islice, pairwise
from operator import not_

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from tercet.checkpoints.template import Ids
from tercet.checkpoints.word_table import LONGEST, WordTable

_FEW, _NEW_OF = 64, 10  # so many are learned at a time, or one of so many that are read
_MARK, _LINE = "|", 64


class Words:
    """Token ids of texts, found by what lies between their spaces; the tokeniser is asked for what is not known yet.

    Thread-safe; the interpreter's lock is not held while words are looked up.

    Args:
        tokenizer: one that `may_split`.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._table = WordTable()
        self._later: set[str] = set()

    @staticmethod
    def may_split(tokenizer: tokenizers.Tokenizer) -> bool:
        """Whether the tokens of any text are those of its words, each by itself, and a table can be read here.

        BERT's rules are so: none looks over a space. An added token could, if it holds one.
        """
        added = tokenizer.get_added_tokens_decoder().values()
        return (
            isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and isinstance(tokenizer.model, models.WordPiece)
            and not any(" " in token.content for token in added)
            and WordTable.works()
        )

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return each text's token ids without special tokens, (n,) int64; some share memory."""
        return self._looked_up(texts, self._unknown)

    def _looked_up(self, texts: Sequence[str], otherwise: Callable[[Sequence[str]], Sequence[Ids]]) -> list[Ids]:
        """Return the ids of texts, of those that hold a word that is not known by what answers otherwise."""
        found = self._table.look_up([text.encode() for text in texts])
        unknown = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        answers = iter(otherwise(unknown) if unknown else ())
        return [next(answers) if ids is None else ids for ids in found]

    def _unknown(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of texts that hold words that are not known; most of these are known from then on."""
        split = [text.split(" ") for text in texts]
        if sum(map(len, split)) < _FEW:
            self._learn_later(split)
            return self._tokenized(texts)
        self._learn(split)
        return self._looked_up(texts, self._tokenized)

    def _learn_later(self, texts: Sequence[Sequence[str]]) -> None:
        """Learn new words of these texts once there are enough of them: a query is not to wait for each of its own."""
        self._later.update(*texts)
        if len(self._later) >= _FEW:
            words, self._later = self._later, set()
            self._learn([list(words)])

    def _learn(self, texts: Sequence[Sequence[str]]) -> None:
        """Keep the ids of words of these texts that are new, of all if they are few.

        A word by itself takes the tokeniser two to three times as long as within a text. So texts of ever new words are
        left to it whole.
        """
        words = [word for word in {*chain.from_iterable(texts)} if len(word.encode()) <= LONGEST]
        lacking = self._table.lacks([word.encode() for word in words]) if words else []
        most = max(_FEW, sum(map(len, texts)) // _NEW_OF)
        new = list(islice(compress(words, lacking), most))
        learned = {word.encode(): ids for word, ids in self._apart(new)}
        fitting = {word: ids for word, ids in learned.items() if len(ids) <= len(word)}  # as an empty word's do
        if fitting:
            self._table.add([*fitting], [*fitting.values()])

    def _apart(self, words: Sequence[str]) -> Iterator[tuple[str, Ids]]:
        """Yield each word with its ids, asked for in lines of many, which takes half as long as one by one."""
        marked = [self._mark is None or _MARK in word for word in words]
        alone = list(compress(words, marked))
        yield from zip(alone, self._tokenized(alone), strict=True)
        others = list(compress(words, map(not_, marked)))
        lines = [others[i : i + _LINE] for i in range(0, len(others), _LINE)]
        for line, ids in zip(lines, self._tokenized([f" {_MARK} ".join(line) for line in lines]), strict=True):
            marks = np.flatnonzero(ids == self._mark).tolist()
            for word, start, end in zip(line, [0, *(mark + 1 for mark in marks)], [*marks, None], strict=True):
                yield word, ids[start:end]

    @cached_property
    def _mark(self) -> int | None:
        """The one token of the mark between words of a line, None where it has no token of its own."""
        (ids,) = self._tokenized([_MARK])
        return int(ids[0]) if len(ids) == 1 and self._tokenizer.id_to_token(int(ids[0])) == _MARK else None

    def _tokenized(self, texts: Sequence[str]) -> list[Ids]:
        return tokenized(self._tokenizer, texts) if texts else []


def tokenized(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Return the ids that the library gives for each text, (n,) int64; they share memory."""
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ends = list(accumulate(map(len, encodings), initial=0))
    # One array for all, which takes less of the interpreter's time than one for each.
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, ends[-1])
    return [ids[start:end] for start, end in pairwise(ends)]
