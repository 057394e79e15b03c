"""Token ids are the reference's, whole or cut, for every kind of tokeniser."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from support.tiny_tokenizers import KINDS, tiny
from tercet.checkpoints import hub
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import CheckpointError, InvalidInputError
from tercet.nn.batch import TokenSequence

TEXTS = [
    "",
    " ",
    "\n\t \r\n",
    "Hello, world!",
    "  leading and   inner   spaces ",
    "the [SEP] of it [CLS][MASK] </s> <mask> <eos> all",
    "emoji 😀 family 👨‍👩‍👧‍👦 flag 🇫🇷 skin 👍🏽",
    "שלום עולם and مرحبا بالعالم ‏rtl",
    "你好世界，這是一個測試。日本語のテスト",
    "control \x00 \x01 \x7f \u200b \ufeff \ufffd chars",
    "Café vs Café ½ ﬁ Å ẞ İ",
    "don't we'll I'M 3.14 1999 x_y",
    "word " * 1500,
    "a" * 10_000,
    "\U0001f600" * 300 + "語" * 300,
]
SHORT = [text[:40] for text in TEXTS]  # the library's list of what it cut off grows with the product of the lengths
Direction = Literal["end", "start"]

alphabet = st.characters(exclude_categories=["Cs"])
words = st.one_of(
    st.sampled_from(["hello", "word", "fox", "42", "a", "<mask>", "[SEP]", "  ", "\n", "é", "|||PHONE|||"]),
    st.text(alphabet, max_size=6),
    st.text("abc 123▁", max_size=8),
)
long_texts = st.lists(words, min_size=1, max_size=40).map(lambda parts: " ".join(parts) * 12)


@cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer(tiny(name))


@cache
def bundled() -> Path:
    return hub.resolve("all-MiniLM-L6-v2", allow_download=False).directory


def truncating(
    name: str, max_length: int, truncate: Direction, strategy: str = "longest_first"
) -> tokenizers.Tokenizer:
    """Return the tokenizers library's own way of cutting."""
    reference = tiny(name)
    direction = "left" if truncate == "start" else "right"
    reference.enable_truncation(max_length, strategy=strategy, direction=direction)
    return reference


def assert_equal(sequence: TokenSequence, encoding: tokenizers.Encoding) -> None:
    assert sequence.input_ids.tolist() == encoding.ids
    types = np.zeros(len(sequence), np.int64) if sequence.token_types is None else sequence.token_types
    assert types.tolist() == encoding.type_ids


@pytest.mark.parametrize("truncate", ["end", "start"])
@pytest.mark.parametrize("name", KINDS)
class TestAgainstTheTokenizersLibrary:
    def test_singles(self, name: str, truncate: Direction) -> None:
        whole = tiny(name)
        for max_length in (7, 64, 5000):
            reference = truncating(name, max_length, truncate)
            for text, sequence in zip(TEXTS, tokenizer(name).singles(TEXTS, max_length, truncate), strict=True):
                assert_equal(sequence, reference.encode(text))
                assert sequence.truncated == (len(whole.encode(text)) > max_length)

    @pytest.mark.parametrize("max_length", [12, 13, 90])
    def test_pairs(self, name: str, truncate: Direction, max_length: int) -> None:
        reference, ours, whole = truncating(name, max_length, truncate), tokenizer(name), tiny(name)
        for query in SHORT:
            for text, got in zip(SHORT, ours.pairs(query, SHORT, max_length, truncate=truncate), strict=True):
                assert_equal(got, reference.encode(query, text))
                assert got.truncated == (len(whole.encode(query, text)) > max_length)

    def test_only_the_second_text_is_cut(self, name: str, truncate: Direction) -> None:
        query = "hello world"
        reference = truncating(name, 24, truncate, "only_second")
        for text, got in zip(SHORT, tokenizer(name).pairs(query, SHORT, 24, "only_second", truncate), strict=True):
            assert_equal(got, reference.encode(query, text))

    @settings(max_examples=80, deadline=None)
    @given(text=long_texts, limit=st.integers(0, 12))
    def test_a_cut_text_keeps_its_tokens(self, name: str, truncate: Direction, text: str, limit: int) -> None:
        (whole,) = tokenizer(name).content([text])
        (part,) = tokenizer(name).content([text], limit=limit, truncate=truncate)
        assert whole.tolist() == tokenizer(name)._backend.encode(text, add_special_tokens=False).ids
        if len(whole) <= limit:
            assert part.tolist() == whole.tolist()
        else:
            assert limit < len(part) <= len(whole)
            same = whole[: len(part)] if truncate == "end" else whole[len(whole) - len(part) :]
            assert part.tolist() == same.tolist()


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"deberta"}))
def test_long_texts_are_really_cut(name: str) -> None:
    text = "hello world " * 100_000
    for truncate in ("end", "start"):
        (ids,) = tokenizer(name).content([text], limit=16, truncate=truncate)
        assert 16 < len(ids) < 1000


class TestProofs:
    """What cannot be proven is not cut."""

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda t: None, {"end", "start"}),
            (lambda t: t.add_tokens(["hello world"]), set()),
            (lambda t: t.add_tokens([tokenizers.AddedToken("hello", rstrip=True)]), set()),
            (lambda t: setattr(t, "pre_tokenizer", None), set()),
            (lambda t: setattr(t, "normalizer", tokenizers.normalizers.Replace("o w", "x")), set()),
            (lambda t: setattr(t, "normalizer", tokenizers.normalizers.Replace(tokenizers.Regex("o.w"), "x")), set()),
            (lambda t: setattr(t, "pre_tokenizer", tokenizers.pre_tokenizers.UnicodeScripts()), set()),
        ],
    )
    def test_what_may_cross_a_space(self, change: Any, expected: set[str]) -> None:
        backend = tiny("wordpiece")
        change(backend)
        assert Tokenizer(backend)._cuttable == expected

    def test_a_vocabulary_that_joins_words(self) -> None:
        state = json.loads(tiny("gemma").to_str())
        assert Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)))._cuttable == {"end", "start"}
        state["model"]["vocab"]["o▁w"] = max(state["model"]["vocab"].values()) + 1
        assert Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)))._cuttable == set()

    def test_a_prefix_that_is_prepended_forbids_cutting_the_start(self) -> None:
        backend = tiny("gemma")
        before = tokenizers.normalizers.Prepend("▁")
        backend.normalizer = tokenizers.normalizers.Sequence([before, backend.normalizer])
        assert Tokenizer(backend)._cuttable == {"end"}


class TestAgainstTransformers:
    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("max_length", [8, 33, 256])
    def test_the_bundled_model(self, max_length: int, side: str) -> None:
        from transformers import AutoTokenizer

        reference = AutoTokenizer.from_pretrained(bundled(), truncation_side=side)
        ours = Tokenizer.from_directory(bundled())
        truncate: Direction = "start" if side == "left" else "end"
        for text, got in zip(TEXTS, ours.singles(TEXTS, max_length, truncate), strict=True):
            assert got.input_ids.tolist() == reference(text, truncation=True, max_length=max_length)["input_ids"]
        for query in SHORT[::3]:
            for text, got in zip(SHORT, ours.pairs(query, SHORT, max_length, truncate=truncate), strict=True):
                expected = reference([query], [text], truncation=True, max_length=max_length)  # alone, "" is no pair
                assert got.input_ids.tolist() == expected["input_ids"][0]
                assert got.token_types is not None
                assert got.token_types.tolist() == expected["token_type_ids"][0]

    @pytest.mark.parametrize("name", KINDS)
    def test_tiny_ones(self, name: str, tmp_path: Path) -> None:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        PreTrainedTokenizerFast(tokenizer_object=tiny(name)).save_pretrained(tmp_path)
        reference = AutoTokenizer.from_pretrained(tmp_path)
        for text, got in zip(TEXTS, Tokenizer.from_directory(tmp_path).singles(TEXTS, 40), strict=True):
            assert got.input_ids.tolist() == reference(text, truncation=True, max_length=40)["input_ids"]

    def test_tokenizer_json_alone_decides_about_the_ends(self, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        bare = tiny("gemma")
        bare.post_processor = tokenizers.processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
        )
        declared = {"eos_token": "<eos>", "add_eos_token": True, "tokenizer_class": "TokenizersBackend"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared))
        bare.save(str(tmp_path / "tokenizer.json"))
        reference, ours = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_directory(tmp_path)
        assert ours.singles(["hello"], 9)[0].input_ids.tolist() == reference("hello")["input_ids"]
        assert ours.pairs("hello", ["world"], 20)[0].input_ids.tolist() == reference("hello", "world")["input_ids"]

    def test_a_vocabulary_file_alone(self, tmp_path: Path) -> None:
        for name in ("vocab.txt", "config.json", "tokenizer_config.json"):
            (tmp_path / name).write_bytes((bundled() / name).read_bytes())
        ours, full = Tokenizer.from_directory(tmp_path), Tokenizer.from_directory(bundled())
        for a, b in zip(ours.singles(TEXTS, 64), full.singles(TEXTS, 64), strict=True):
            assert a.input_ids.tolist() == b.input_ids.tolist()


class TestPairStrategies:
    def test_three_quarters_for_the_query(self) -> None:
        ours = tokenizer("byte_level")
        query, document = ours.content(["hello " * 50, "world " * 50])
        got = ours.pair(query, document, 40, "query_three_quarters")
        assert len(got) == 40
        assert got.input_ids.tolist() == [0, *query[:30], 2, 2, *document[:6], 2]
        assert got.truncated
        (same,) = ours.pairs("hello " * 50, ["world " * 50], 40, "query_three_quarters")
        assert same.input_ids.tolist() == got.input_ids.tolist()

    def test_a_query_that_fills_everything(self) -> None:
        with pytest.raises(InvalidInputError, match="leaves no room for the document"):
            tokenizer("wordpiece").pairs("hello " * 50, ["world"], 20, "only_second")

    def test_none_forbids_cutting(self) -> None:
        ours = tokenizer("wordpiece")
        with pytest.raises(InvalidInputError, match="item 12 has more than 20 tokens"):
            ours.pairs("hello", ["world", "world " * 50], 20, truncate="none", first=11)
        with pytest.raises(InvalidInputError, match="item 0"):
            ours.pairs("hello " * 16, ["world"], 20, "query_three_quarters", truncate="none")


class TestInputs:
    def test_none_forbids_cutting(self) -> None:
        with pytest.raises(InvalidInputError, match="item 5 has more than 8 tokens"):
            tokenizer("wordpiece").singles(["fits", "hello " * 50], 8, "none", first=4)

    @pytest.mark.parametrize("bad", ["abc \ud800 def", "\udfff", "ok 😀 \udc00"])
    def test_lone_surrogates(self, bad: str) -> None:
        position = next(i for i, c in enumerate(bad) if "\ud800" <= c <= "\udfff")
        with pytest.raises(InvalidInputError, match=rf"item 8 has a lone surrogate .* at position {position}"):
            tokenizer("wordpiece").content(["fine", bad], first=7)
        with pytest.raises(InvalidInputError, match="the query has a lone surrogate"):
            tokenizer("wordpiece").pairs(bad, ["fine"], 20)

    @pytest.mark.parametrize("bad", [None, 3, b"bytes", ["list"]])
    def test_what_is_no_text(self, bad: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"item 1 is \w+, not a text"):
            tokenizer("wordpiece").content(["fine", bad])

    def test_max_length_below_the_special_tokens(self) -> None:
        with pytest.raises(InvalidInputError, match="no room for the 2 special tokens"):
            tokenizer("wordpiece").singles(["a"], 1)

    def test_no_texts(self) -> None:
        assert tokenizer("wordpiece").singles([], 8) == []
        assert tokenizer("wordpiece").pairs("q", [], 8) == []

    def test_many_threads_agree(self) -> None:
        ours = Tokenizer(tiny("unigram"))
        expected = [ids.tolist() for ids in ours.content(TEXTS)]
        barrier = threading.Barrier(8)

        def work(_: int) -> bool:
            barrier.wait()
            return all([ids.tolist() for ids in ours.content(TEXTS, limit=1 << 20)] == expected for _ in range(5))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))


class TestVocabulary:
    def test_special_tokens(self) -> None:
        ours = Tokenizer.from_directory(bundled())
        roles = {role: ours.special_id(role) for role in ("pad", "unk", "cls", "sep", "mask", "bos")}
        assert roles == {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103, "bos": None}
        assert ours.special_ids == {0, 100, 101, 102, 103}
        assert ours.vocab_size == 30522
        assert (ours.token_to_id("hello"), ours.id_to_token(7592)) == (7592, "hello")
        assert ours.token_to_id("no such token") is None
        assert ours.id_to_token(10**6) is None

    @pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": 3}', b"\xff\xfe"])
    def test_a_damaged_file(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
            Tokenizer.from_directory(tmp_path)

    def test_no_tokenizer_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
            Tokenizer.from_directory(tmp_path)

    def test_a_template_that_changes_the_text(self) -> None:
        backend = tiny("wordpiece")
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A [SEP] $A", pair="$B $A", special_tokens=[("[SEP]", 3)]
        )
        with pytest.raises(CheckpointError, match="template"):
            _ = Tokenizer(backend).single_template
        with pytest.raises(CheckpointError, match="template"):
            _ = Tokenizer(backend).pair_template
