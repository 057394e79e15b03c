"""Where an over-long text may be cut before it is tokenised, so that the tokens that matter stay exactly the same.

The place is always a single space between two ASCII letters or digits. No normaliser known here changes such a space,
looks across it or composes it with its neighbours, and no pre-tokeniser known here lets a word continue over it. So the
tokens of the text are those of its two sides, one after the other; the right side begins with the space. What is not
known to behave so is not cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import tokenizers

Side = Literal["end", "start"]
Part = Mapping[str, Any]  # a normaliser or pre-tokeniser as tokenizer.json writes it

_BOUNDARY = re.compile(r"[A-Za-z0-9] (?=[A-Za-z0-9])")
_WORD_MARK = "▁"
_INNER_SPACE = re.compile(rf"[^\s{_WORD_MARK}][\s{_WORD_MARK}]")
_CHARACTERWISE = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
_AT_THE_EDGES = {"Prepend", "Strip"}
_SPLITTING_AT_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_SPLITTING_ELSEWHERE = {"Digits", "Punctuation"}
# The patterns of GPT-2, GPT-4 and Llama 3, and Qwen: none matches a letter or digit followed by a space.
_CONTRACTION = r"'s|'t|'re|'ve|'m|'ll|'d"
_SPACES = r"\s+(?!\S)|\s+"
_LATER = rf"(?i:{_CONTRACTION})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}"
_WORD_PATTERNS = {
    rf"{_CONTRACTION}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}",
    _LATER % r"\p{N}{1,3}",
    _LATER % r"\p{N}",
}


def shortened(text: str, length: int, keep: Side) -> str:
    """Return at least `length` characters from the start ("end" is cut) or the end, up to a boundary; or all of it."""
    if len(text) <= 2 * length:
        return text
    if keep == "end":
        match = _BOUNDARY.search(text, length)
        return text[: match.end() - 1] if match else text
    match = _BOUNDARY.search(text[::-1], length)
    return text[-match.end() :] if match else text


def cuttable(tokens: tokenizers.Tokenizer) -> frozenset[Side]:
    """Return which ends of a text may be cut off for this tokeniser without a change to the other tokens."""
    normalizers, splitters = _parts(tokens.normalizer), _parts(tokens.pre_tokenizer)
    nothing: frozenset[Side] = frozenset()
    if not all(map(_keeps_spaces, normalizers)) or any(map(_may_cross, tokens.get_added_tokens_decoder().values())):
        return nothing
    marked = any(part["type"] == "Replace" and part["pattern"] == {"String": " "} for part in normalizers)
    if not marked and _splits(splitters):
        # A suffix begins with its space: it must not be stripped where its absence would show.
        stripped = any(part["type"] == "Strip" for part in normalizers) and not all(map(_restores_space, splitters))
        return frozenset({"end"}) if stripped else frozenset({"end", "start"})
    if not all(_never_splits(part, marked) for part in splitters) or not _words_stay_apart(tokens):
        return nothing
    prefixed = any(part["type"] in _AT_THE_EDGES for part in normalizers)
    # Sums of a Unigram's scores are rounded differently when they start elsewhere, so ties may fall otherwise.
    exact = type(tokens.model).__name__ == "BPE" and not prefixed
    return frozenset({"end", "start"}) if exact else frozenset({"end"})


def _parts(part: Any) -> list[Part]:
    """Return the elements of a sequence, or the one part, or nothing."""
    if part is None:
        return []
    return _flat(json.loads(part.__getstate__()))


def _flat(part: Part) -> list[Part]:
    if part["type"] != "Sequence":
        return [part]
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    return [leaf for child in inner for leaf in _flat(child)]


def _keeps_spaces(normalizer: Part) -> bool:
    if normalizer["type"] != "Replace":
        return normalizer["type"] in _CHARACTERWISE | _AT_THE_EDGES
    pattern = normalizer["pattern"]
    if "Regex" in pattern:
        return bool(pattern["Regex"] == " {2,}")
    return pattern["String"] == " " or not re.search(r"[A-Za-z0-9 ]", pattern["String"])


def _may_cross(token: tokenizers.AddedToken) -> bool:
    """Whether an added token can reach over a boundary: by a space inside it, or by swallowing the one beside it."""
    swallows = (token.lstrip or token.rstrip) and re.search(r"^[A-Za-z0-9]|[A-Za-z0-9]$", token.content)
    return bool(swallows or _INNER_SPACE.search(token.content))


def _splits(splitters: list[Part]) -> bool:
    """Whether some part ends every word at a space, and those before it do no harm."""
    for part in splitters:
        if _splits_at_spaces(part):
            return True
        if part["type"] not in _SPLITTING_ELSEWHERE:
            return False
    return False


def _splits_at_spaces(part: Part) -> bool:
    match part["type"]:
        case "Metaspace":
            return bool(part.get("split", True))
        case "ByteLevel":
            return bool(part.get("use_regex", True))
        case "Split":
            return part["pattern"].get("Regex") in _WORD_PATTERNS and part["behavior"] == "Isolated"
    return part["type"] in _SPLITTING_AT_SPACES


def _restores_space(part: Part) -> bool:
    return part["type"] in _SPLITTING_AT_SPACES or part.get("prepend_scheme") == "always"


def _never_splits(part: Part, marked: bool) -> bool:
    """Whether the part leaves the whole text one word whose spaces are word marks."""
    if part["type"] == "Metaspace":
        return True
    return marked and part["type"] == "Split" and part["pattern"] == {"String": " "}


def _words_stay_apart(tokens: tokenizers.Tokenizer) -> bool:
    """Whether no entry of the vocabulary reaches from one word into the next, though words are not split."""
    model = tokens.model
    kind = type(model).__name__
    if kind not in ("BPE", "Unigram"):
        return False
    if kind == "BPE" and (model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix):
        return False
    vocabulary = tokens.get_vocab(with_added_tokens=False)
    inner = re.compile(rf"[^{_WORD_MARK}]{_WORD_MARK}")
    return _WORD_MARK in vocabulary and not any(map(inner.search, vocabulary))
