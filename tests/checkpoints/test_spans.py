"""Tokens with their characters, and the way back to text."""

import pytest

from support.tiny_tokenizers import KINDS, tiny
from tercet.checkpoints.spans import Token
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import InvalidInputError

TEXT = "the quick brown fox, café 世界 says: hello"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_that_models_read_and_spans_those_of_the_library(kind):
    tokenizer, reference = Tokenizer(tiny(kind)), tiny(kind).encode(TEXT, add_special_tokens=False)
    tokens = tokenizer.tokens(TEXT, special=False)
    assert [(token.id, token.start, token.stop) for token in tokens] == [
        (index, *span) for index, span in zip(reference.ids, reference.offsets, strict=True)
    ]
    assert all(token.text == TEXT[token.start : token.stop] and not token.special for token in tokens)
    (sequence,) = tokenizer.singles([TEXT], 512)
    assert [token.id for token in tokenizer.tokens(TEXT)] == sequence.input_ids.tolist()


def test_added_tokens_have_a_name_and_no_place():
    first, *_, last = Tokenizer(tiny("wordpiece")).tokens("hello [SEP] world")
    assert (first, last) == (Token(2, "[CLS]", True), Token(3, "[SEP]", True))


def test_special_tokens_that_the_text_spells_have_a_place():
    tokens = Tokenizer(tiny("wordpiece")).tokens("hello [SEP] world", special=False)
    assert [token for token in tokens if token.special] == [Token(3, "[SEP]", True, 6, 11)]


def test_decoding_leaves_special_tokens_out_unless_asked():
    tokenizer = Tokenizer(tiny("wordpiece"))
    ids = [token.id for token in tokenizer.tokens("hello world")]
    assert tokenizer.decode(ids) == "hello world"
    assert tokenizer.decode(ids, skip_special=False) == "[CLS] hello world [SEP]"


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**40])
def test_ids_outside_the_vocabulary_are_named(wrong):
    with pytest.raises(InvalidInputError, match=f"^{wrong} is no token id"):
        Tokenizer(tiny("wordpiece")).decode([5, wrong])


def test_no_text_is_no_text():
    with pytest.raises(InvalidInputError, match="surrogate"):
        Tokenizer(tiny("wordpiece")).tokens("a \ud800")
