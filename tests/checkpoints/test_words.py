"""Word by word: the tokeniser's own answers, for any text, whatever was read before."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers

from support.tiny_tokenizers import KINDS, tiny
from tercet.checkpoints import word_table, words
from tercet.checkpoints.template import Ids
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.checkpoints.word_table import WordTable
from tercet.checkpoints.words import Words

SWITCHES = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
VARIANTS = [dict(zip(SWITCHES, values, strict=True)) for values in product((True, False), repeat=4)]

# What normalising and splitting look at: spaces of all kinds, marks that join what goes before them, control
# characters, characters that stand alone or change their case by what is around, and special tokens.
pieces = st.one_of(
    st.sampled_from([" ", "  ", "\n", "\t", "\x0b", "\x1c", "\x85", "\xa0", "\u2003", "\u200b", "\u3000", "\ufeff"]),
    st.sampled_from(["\u0301", "\u0345", "\u0f71", "\u1161", "\x00", "\x7f", "\ufffd", "語", "Σ", "İ", "ﬁ", "é", "."]),
    st.sampled_from(["hello", "WORD", "fox's", "[MASK]", "[SEP]", "[mask]", "new_token", "##s", "a" * 60, "b" * 120]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
texts = st.lists(st.lists(pieces, max_size=12).map("".join), max_size=4)


def bert(**switches: Any) -> tokenizers.Tokenizer:
    made = tiny("wordpiece")
    vocabulary = made.get_vocab(with_added_tokens=False)
    made.model = models.WordPiece({**vocabulary, "|": len(vocabulary)}, unk_token="[UNK]")
    made.normalizer = normalizers.BertNormalizer(**switches)
    made.add_tokens([AddedToken("new_token", single_word=True), AddedToken("fox's", normalized=True)])
    made.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    return made


def ids(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
def test_a_text_is_its_words(switches: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_FEW", "_NEW_OF"):
        monkeypatch.setattr(words, limit, 1)  # so that all words are learned at once
    tokenizer = bert(**switches)
    kept = Words(tokenizer)

    @given(texts)
    def check(given: list[str]) -> None:
        for _ in range(2):  # once with words that are new, once without
            assert [found.tolist() for found in kept.encode(given)] == [ids(tokenizer, text) for text in given]

    check()


def test_only_berts_rules_may_split() -> None:
    may = {name for name in KINDS if Words.may_split(tiny(name))}
    assert may == {"wordpiece"}
    spaced = bert()
    spaced.add_tokens(["two words"])
    assert Words.may_split(bert()) and not Words.may_split(spaced)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the tokeniser is asked for."""
    asked: list[str] = []
    tokenized = Words._tokenized

    def told(self: Words, texts: Sequence[str]) -> list[Ids]:
        asked.extend(texts)
        return tokenized(self, texts)

    monkeypatch.setattr(Words, "_tokenized", told)
    return asked


def test_the_tokenizer_is_asked_once_for_a_word(asked: list[str]) -> None:
    kept = Words(bert())
    assert kept._mark is not None
    asked.clear()
    for _ in range(2):
        kept.encode(["hello word hello " * 30, "word"])
    assert {*asked[0].split(" | ")} == {"hello", "word", ""} and not any(asked[1:])
    asked.clear()
    long = "a" * 49
    kept.encode([long, f"{long} hello"])
    assert [text for text in asked if text] == [long, f"{long} hello"] and len(kept._table) == 3


def test_few_texts_are_read_whole_until_many_words_are_new(asked: list[str]) -> None:
    kept = Words(bert())
    assert kept._mark is not None
    asked.clear()
    queries = [f"hello w{i}" for i in range(64)]
    for query in queries:
        kept.encode([query])
    assert [text for text in asked if "|" not in text] == queries and len(asked) == 65
    asked.clear()
    for query in queries[:63]:
        kept.encode([query])
    assert not asked


def test_words_of_one_hash_are_told_apart() -> None:
    table = WordTable()
    table.add([b"one", b"two"], [np.array([1]), np.array([2, 3])])
    assert [ids.tolist() for ids in table.look_up([b"two one", b"one"]) if ids is not None] == [[2, 3, 1], [1]]
    hashes = table._slots[:, 0]
    (place,) = np.flatnonzero(hashes == table._read([b"one"])[2][0])
    table._keys[table._slots[place, 1]] += 1  # now the slot of "one" is another word's of the same hash
    assert table.lacks([b"one", b"two"]) == [True, False] and table.look_up([b"one"]) == [None]


@pytest.mark.parametrize("many", [1, 3000])
def test_a_table_holds_what_was_put_in(many: int) -> None:
    table, rng = WordTable(), np.random.default_rng(0)
    given = {f"w{i:x}".encode(): rng.integers(0, 1 << 40, i % 5) for i in range(many)}
    for part in range(0, many, 100):
        some = [*given][part : part + 100]
        table.add(some, [given[word] for word in some])
    assert len(table) == many and not any(table.lacks([*given]))
    for ids, expected in zip(table.look_up([*given]), given.values(), strict=True):
        assert ids is not None and ids.tolist() == expected.tolist()
    assert table.lacks([b"w", b"", b"w0 w1"]) == [True, True, many == 1]


def test_long_texts_are_read_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, "_PORTION", 100)
    read: list[int] = []
    inside = WordTable._read
    monkeypatch.setattr(WordTable, "_read", lambda self, texts: read.append(len(texts)) or inside(self, texts))
    table = WordTable()
    table.add([b"one"], [np.array([7])])
    read.clear()
    texts = [b"one", b" ".join([b"one"] * 50), b"one one", b"two", b"one"]
    assert [ids if ids is None else ids.tolist() for ids in table.look_up(texts)] == [[7], [7] * 50, [7, 7], None, [7]]
    assert read == [1, 1, 3] and table.look_up([]) == []


def test_many_new_words_are_asked_for_in_lines(asked: list[str]) -> None:
    tokenizer = bert()
    kept = Words(tokenizer)
    texts = [" ".join(f"w{i}.{j}" for j in range(20)) for i in range(100)]
    for text, found in zip(texts, kept.encode(texts), strict=True):
        assert found.tolist() == ids(tokenizer, text)
    assert len(kept._table) == 200  # a tenth; the texts were read whole
    assert max(text.count("|") for text in asked) == 63


@pytest.mark.parametrize("vocabulary", [True, False], ids=["with the mark", "without"])
def test_the_mark_may_stand_in_texts(vocabulary: bool) -> None:
    tokenizer = bert()
    if not vocabulary:
        kept = {piece: at for piece, at in tokenizer.get_vocab(with_added_tokens=False).items() if piece != "|"}
        tokenizer.model = models.WordPiece(kept, unk_token="[UNK]")
    reader = Words(tokenizer)
    assert (reader._mark is not None) == vocabulary
    for texts in (["a | b", "hello | hello|word |"], ["hello word", "the fox"], ["|", "||", "fox|"]):
        assert [found.tolist() for found in reader.encode(texts)] == [ids(tokenizer, text) for text in texts]


@pytest.mark.parametrize(("limit", "size"), [("MOST", 10), ("_KEY_BYTES", 80), ("_IDS", 50)])
def test_words_are_bounded_and_forgotten(limit: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, limit, size)
    monkeypatch.setattr(words, "_FEW", 4)  # so that these texts' words are learned at once
    tokenizer = bert()
    kept = Words(tokenizer)
    sizes = []
    for i in range(40):
        text = f"hello w{i} x{i}"
        for _ in range(2):
            assert kept.encode([text, "hello"])[0].tolist() == ids(tokenizer, text)
        sizes.append(len(kept._table))
    assert max(sizes) <= 40 and sizes != sorted(sizes)


def test_threads_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """While some learn, others read, and the table begins anew."""
    monkeypatch.setattr(word_table, "MOST", 100)
    monkeypatch.setattr(words, "_FEW", 8)
    cleared: list[int] = []
    clear = WordTable._clear
    monkeypatch.setattr(WordTable, "_clear", lambda self: cleared.append(len(self)) or clear(self))
    tokenizer = bert()
    kept = Words(tokenizer)
    given = [[f"w{i * j % 97} hello {j}" for j in range(30)] for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(kept.encode, given * 3))
    expected = [[ids(tokenizer, text) for text in texts] for texts in given] * 3
    assert [[part.tolist() for part in each] for each in found] == expected
    assert max(cleared) > 50


def test_the_lookup_is_compiled_when_a_tokeniser_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, kernel = [], word_table.lookup_kernel

    def lookup_kernel() -> Any:
        asked.append("asked")
        return kernel()

    monkeypatch.setattr(word_table, "lookup_kernel", lookup_kernel)
    Tokenizer(tiny("wordpiece"))
    assert asked
