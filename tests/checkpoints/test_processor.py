"""Items to token sequences: prompts, truncation, own token ids, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from support.checkpoints import rewrite, save_checkpoint, with_words
from support.tiny_tokenizers import tiny
from tercet.checkpoints.checkpoint import Checkpoint, EncodeSettings, PairSettings
from tercet.checkpoints.open import open_checkpoint
from tercet.errors import InvalidInputError, TercetError, UnsupportedOperationError
from tercet.nn.batch import TokenSequence
from tercet.types import Item

LONG = " ".join(f"fox {i}" for i in range(100))
LIMIT = 64


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory = tmp_path_factory.mktemp("dense")
    save_checkpoint(directory)
    return open_checkpoint(str(directory))


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A ColBERT: queries of 10 tokens, documents of up to 16."""
    directory = tmp_path_factory.mktemp("late")
    save_checkpoint(directory, tokenizer=with_words(tiny("wordpiece"), ["[unused0]", "[unused1]"]))
    rewrite(directory / "config.json", architectures=["HF_ColBERT"])
    rewrite(directory / "artifact.metadata", query_maxlen=10, doc_maxlen=16)
    return open_checkpoint(str(directory))


def sequences(checkpoint: Checkpoint, *items: Item | str, first: int = 0, **settings: Any) -> list[TokenSequence]:
    given = [Item(item) if isinstance(item, str) else item for item in items]
    prepared = checkpoint.encode(given, EncodeSettings(**settings), first)
    assert all(isinstance(sequence, TokenSequence) for sequence in prepared)
    return [sequence for sequence in prepared if isinstance(sequence, TokenSequence)]


def ids_of(checkpoint: Checkpoint, text: str) -> list[int]:
    backend = tokenizers.Tokenizer.from_file(str(checkpoint.spec.directory / "tokenizer.json"))
    backend.no_truncation()
    return list(backend.encode(text).ids)


def test_texts_become_the_tokenisers_ids(dense: Checkpoint) -> None:
    for text in ("", "Hello, world!", "café 世界 😀"):
        (sequence,) = sequences(dense, text)
        assert sequence.input_ids.tolist() == ids_of(dense, text)
        assert sequence.input_ids.dtype == np.int64
        assert (sequence.token_types, sequence.attended, sequence.pooled_from, sequence.kept) == (None, None, 0, None)


def test_truncation_keeps_the_end_that_is_asked_for(dense: Checkpoint) -> None:
    whole = ids_of(dense, LONG)
    assert len(whole) > 2 * LIMIT
    (end,) = sequences(dense, LONG, truncate="end")
    (start,) = sequences(dense, LONG, truncate="start")
    assert end.input_ids.tolist() == [*whole[: LIMIT - 1], whole[-1]]
    assert start.input_ids.tolist() == [whole[0], *whole[1 - LIMIT :]]
    assert end.truncated and start.truncated and not sequences(dense, "short")[0].truncated


def test_no_truncation_names_the_item_and_the_limit(dense: Checkpoint) -> None:
    with pytest.raises(InvalidInputError, match=r"item 7 .*64 tokens"):
        sequences(dense, "short", LONG, truncate="none", first=6)


def test_own_ids_are_used_as_they_are(dense: Checkpoint) -> None:
    mixed = sequences(dense, "hello", Item(input_ids=[5, 0, 7]), Item(input_ids=np.array([9])), prompt="a prompt ")
    assert [sequence.input_ids.tolist() for sequence in mixed] == [ids_of(dense, "a prompt hello"), [5, 0, 7], [9]]


BAD: list[tuple[Item, str]] = [
    (Item(), "item 3 has neither text nor input_ids"),
    (Item(text=3), "item 3 is int, not a text"),  # type: ignore[arg-type]
    (Item(text="a\ud800b"), "item 3 has a lone surrogate"),
    (Item(input_ids=[]), "item 3: input_ids must be a non-empty sequence of integers"),
    (Item(input_ids=[1.5]), "item 3: input_ids must be"),  # type: ignore[list-item]
    (Item(input_ids=[True]), "item 3: input_ids must be"),
    (Item(input_ids=[[1], [2, 3]]), "item 3: input_ids must be"),  # type: ignore[list-item]
    (Item(input_ids=[[1]]), "item 3: input_ids must be"),  # type: ignore[list-item]
    (Item(input_ids=[2**70]), "item 3: input_ids must be"),
    (Item(input_ids=[4, -1]), "item 3: input_ids has -1; the vocabulary has ids from 0 to"),
    (Item(input_ids=[4, 10**6]), "item 3: input_ids has 1000000; the vocabulary has"),
    (Item(input_ids=[4] * 65), "item 3 has 65 input_ids, .* at most 64"),
]


@pytest.mark.parametrize(("item", "message"), BAD)
def test_bad_items_are_refused(item: Item, message: str, dense: Checkpoint) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sequences(dense, "fine", item, first=2)


def test_a_text_without_any_token_is_refused(tmp_path: Path) -> None:
    made = tiny("byte_level")
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    save_checkpoint(tmp_path, "Qwen3ForCausalLM", tokenizer=made, kind="qwen")
    with pytest.raises(InvalidInputError, match="item 1 has no tokens"):
        sequences(open_checkpoint(str(tmp_path)), "hello", "")


def test_markers_and_filling_are_for_texts_and_multivectors(late: Checkpoint) -> None:
    (query,) = sequences(late, "hello", outputs=("multivector",), is_query=True)
    assert (len(query), query.attended) == (10, 4)
    (given,) = sequences(late, Item(input_ids=[5, 6, 7]), outputs=("multivector",), is_query=True)
    assert given.input_ids.tolist() == [5, 6, 7] and given.attended is None


@pytest.mark.parametrize("truncate", ["end", "start"])
@pytest.mark.parametrize(("is_query", "length", "marker"), [(True, 10, "[unused0]"), (False, 16, "[unused1]")])
def test_the_marker_survives_truncation(
    truncate: Any, is_query: bool, length: int, marker: str, late: Checkpoint
) -> None:
    backend = tokenizers.Tokenizer.from_file(str(late.spec.directory / "tokenizer.json"))
    options = {"outputs": ("multivector",), "is_query": is_query, "truncate": truncate}
    (sequence,) = sequences(late, LONG, **options)
    assert len(sequence) == length and sequence.truncated
    assert sequence.input_ids[1] == backend.token_to_id(marker)
    assert (sequence.input_ids[0], sequence.input_ids[-1]) == (2, 3)


def test_a_dense_model_reads_no_pairs(dense: Checkpoint) -> None:
    with pytest.raises(UnsupportedOperationError, match="reads no pairs; it has dense, multivector"):
        dense.pairs(Item("query"), [Item("document")], PairSettings())


@pytest.mark.parametrize(
    ("query", "document", "message"),
    [
        (Item(input_ids=[1]), Item("d"), "the query has input_ids, which cannot be used here"),
        (Item("q"), Item(), "item 5 has neither"),
        (Item("a\udfff"), Item("d"), "the query has a lone surrogate"),
        (Item("q"), Item("\ud800"), "item 5 has a lone surrogate"),
    ],
)
def test_bad_pairs_are_refused(query: Item, document: Item, message: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForSequenceClassification")
    with pytest.raises(TercetError, match=message):
        open_checkpoint(str(tmp_path)).pairs(query, [document], PairSettings(), first=5)


def test_the_query_is_tokenised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, "BertForSequenceClassification")
    checkpoint = open_checkpoint(str(tmp_path))
    from tercet.checkpoints.tokenizer import Tokenizer

    read: list[str] = []
    encode = Tokenizer._encode
    monkeypatch.setattr(Tokenizer, "_encode", lambda self, texts: (read.extend(texts), encode(self, texts))[1])
    pairs = checkpoint.pairs(Item("the query"), [Item(f"document {i}") for i in range(4)], PairSettings())
    assert len(pairs) == 4 and read.count("the query") == 1 and len(read) == 5
