"""Tiny tokenisers of every kind, made on the spot and alike in every process.

The trainers of WordPiece and Unigram keep their counts in hash maps seeded anew in every process and break ties in that
order, so what a tiny model answers would differ from one run of a test to the next. Byte-pair encoding's does not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import combinations

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

_CORPUS = [
    "the quick brown fox jumps over the lazy dog and says hello world",
    "a sentence, with punctuation: commas; dots... and (brackets)!",
    "numbers 0 1 2 3 42 1999 3.14 and words, words, words",
    "über café naïve señor fiancée",
    "你好 世界 這是 一個 測試 。 日本語 のテスト",
    "مرحبا بالعالم שלום עולם Привет мир",
    "the   runs  of    spaces\n\nand\tlines",
] * 3
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MASK = AddedToken("<mask>", lstrip=True, special=True)


def _pieces(made: Tokenizer, inside: str = "") -> dict[str, int]:
    """Return the corpus's characters, words and commonest parts of words, with how often each occurs.

    Args:
        made: cuts the corpus into words.
        inside: a mark before pieces that do not begin a word.
    """
    letters, words, parts = Counter[str](), Counter[str](), Counter[str]()
    for text in _CORPUS:
        for word, _ in made.pre_tokenizer.pre_tokenize_str(made.normalizer.normalize_str(text)):
            words[word] += 1
            letters.update(mark + letter for letter in word for mark in {"", inside})
            for start, end in combinations(range(len(word) + 1), 2):
                parts[inside * (start > 0) + word[start:end]] += 1
    commonest = sorted(parts, key=lambda part: (-parts[part], part))[:150]
    return {**{part: parts[part] for part in commonest}, **words, **letters}


def wordpiece() -> Tokenizer:
    """BERT's: normaliser, words, [CLS] and [SEP], type 1 for the second text."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {piece: token for token, piece in enumerate([*specials, *_pieces(made, "##")])}
    made.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    made.add_special_tokens(specials)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def byte_level() -> Tokenizer:
    """RoBERTa's: byte-level BPE, doubled separator, a mask that swallows the space before it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>", _MASK]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    made.train_from_iterator(_CORPUS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


def modernbert() -> Tokenizer:
    """ModernBERT's: byte-level BPE after NFC, runs of spaces as added tokens."""
    made = byte_level()
    made.normalizer = normalizers.NFC()
    made.add_tokens([AddedToken("  ", normalized=False), AddedToken("|||PHONE|||", normalized=False)])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def qwen() -> Tokenizer:
    """Qwen's: a pattern of its own, then bytes; only an end token is appended."""
    made = byte_level()
    made.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_QWEN), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="$A </s>", pair="$A:0 </s>:0 $B:1 </s>:1", special_tokens=[("</s>", 2)]
            ),
        ]
    )
    return made


def unigram() -> Tokenizer:
    """XLM-RoBERTa's: sentence pieces with word marks."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    specials = ["<s>", "<pad>", "</s>", "<unk>", _MASK]
    counts = _pieces(made)
    scores = [(piece, math.log(count / sum(counts.values()))) for piece, count in counts.items()]
    made.model = models.Unigram([*((str(special), 0.0) for special in specials), *scores], unk_id=3)
    made.add_special_tokens(specials)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def deberta() -> Tokenizer:
    """DeBERTa-v3's: sentence pieces of stripped texts."""
    made = unigram()
    made.normalizer = normalizers.Sequence([normalizers.Strip(), made.normalizer])
    return made


def gemma() -> Tokenizer:
    """Gemma's: BPE over the whole text, whose spaces are word marks."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=specials))
    made = trained
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> <bos>:1 $B:1 <eos>:1", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return made


def plain() -> Tokenizer:
    """Words and nothing around them: no post-processor at all."""
    made = wordpiece()
    bare = Tokenizer(made.model)
    bare.normalizer, bare.pre_tokenizer = made.normalizer, pre_tokenizers.Whitespace()
    return bare


KINDS: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make for make in (wordpiece, byte_level, modernbert, qwen, unigram, deberta, gemma, plain)
}


@cache
def _trained(kind: str) -> str:
    return str(KINDS[kind]().to_str())


def tiny(kind: str) -> Tokenizer:
    """Return a tokeniser of one of the `KINDS`, the caller's own to change."""
    return Tokenizer.from_str(_trained(kind))
