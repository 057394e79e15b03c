"""The vectors are Qdrant's: words, stems, hash and weights, checked against values written down from the formula."""

from concurrent.futures import ThreadPoolExecutor

import mmh3
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.checkpoints.bm25 import Bm25Checkpoint, is_bm25
from tercet.checkpoints.checkpoint import Checkpoint, EncodeSettings, PairSettings, Ready
from tercet.errors import InvalidInputError, ModelNotFoundError, UnsupportedOperationError
from tercet.types import Item, SparseVector

DOCUMENT, QUERY = EncodeSettings(("sparse",)), EncodeSettings(("sparse",), is_query=True)
BM25 = Bm25Checkpoint()


def ready(text: str, settings: EncodeSettings = DOCUMENT, checkpoint: Bm25Checkpoint = BM25) -> Ready:
    (prepared,) = checkpoint.encode([Item(text)], settings)
    assert isinstance(prepared, Ready)
    return prepared


def vector(text: str, settings: EncodeSettings = DOCUMENT, checkpoint: Bm25Checkpoint = BM25) -> SparseVector:
    sparse = ready(text, settings, checkpoint).rows["sparse"]
    assert isinstance(sparse, SparseVector)
    return sparse


def weights(text: str, settings: EncodeSettings = DOCUMENT, checkpoint: Bm25Checkpoint = BM25) -> dict[int, float]:
    sparse = vector(text, settings, checkpoint)
    return dict(zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True))


def index(stem: str) -> int:
    return abs(mmh3.hash(stem))


def test_index_of_a_known_term() -> None:
    assert vector("csv").indices.tolist() == [262000698]


def test_document_weights_are_the_formula() -> None:
    text = "Running dogs run; the runner runs past a dog."  # run ×3, dog ×2, runner, past: 7 terms
    norm = 1.2 * (1 - 0.75 + 0.75 * 7 / 256)
    expected = {"run": 3 * 2.2 / (3 + norm), "dog": 2 * 2.2 / (2 + norm)}
    expected |= dict.fromkeys(("runner", "past"), 2.2 / (1 + norm))
    assert weights(text) == pytest.approx({index(stem): weight for stem, weight in expected.items()})
    assert ready(text).tokens == 7


def test_query_weights_are_one_for_each_distinct_term() -> None:
    assert weights("read reading a CSV csv", QUERY) == {index("read"): 1.0, index("csv"): 1.0}


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        ("don't WE'LL", []),
        ("snake_case x_y _ __init__", ["snake_cas", "x_i", "__init__"]),
        ("ÉCOLE straße ＡＢＣ", ["école", "straße", "ａｂｃ"]),
        ("日本語 テスト", ["日本語", "テスト"]),
        ("emoji 😀 ok 3.14", ["emoji", "ok", "3", "14"]),
        ("a" * 41 + " " + "b" * 40, ["b" * 40]),
        ("internal universal organization", ["intern", "univers", "organ"]),
        ("", []),
        ("\x00\x1f…!?", []),
    ],
)
def test_words_and_stems(text: str, stems: list[str]) -> None:
    assert set(vector(text).indices.tolist()) == {index(stem) for stem in stems}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_vectors_are_ascending_positive_and_a_function_of_the_text(text: str) -> None:
    sparse = vector(text)
    assert (np.diff(sparse.indices.astype(np.int64)) > 0).all() and (sparse.values > 0).all()
    assert sparse.indices.dtype == np.uint32 and sparse.values.dtype == np.float32
    assert weights(text) == weights(text, checkpoint=Bm25Checkpoint())
    assert set(weights(text, QUERY)) == set(weights(text))


@pytest.mark.slow
def test_threads_agree() -> None:
    items = [Item(f"word{i}s reading{i % 7} files") for i in range(2000)]
    fresh = Bm25Checkpoint()
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: fresh.encode(items, DOCUMENT), range(8)))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one.rows["sparse"].indices, other.rows["sparse"].indices)


def test_long_words_are_not_cached() -> None:
    fresh = Bm25Checkpoint()
    assert len(vector("x" * 1_000_000 + " z", checkpoint=fresh)) == 1
    assert fresh._index.cache_info().currsize == 1


def test_languages_have_their_stemmer_and_say_that_stopwords_are_missing() -> None:
    german = Bm25Checkpoint("bm25:german")
    assert set(weights("die Häuser", checkpoint=german)) == {index("die"), index("haus")}
    assert "no stopword list for german" in german.spec.notes[0]
    assert Bm25Checkpoint("bm25:english").spec.notes == ()


@pytest.mark.parametrize("model", ["bm25:klingon", "bm25:german@2", "bert"])
def test_unknown_languages_list_the_known_ones(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match="arabic, danish"):
        Bm25Checkpoint(model)


@pytest.mark.parametrize(
    ("model", "ours"), [("bm25", True), ("bm25:x", True), ("bm25s", False), ("Qdrant/bm25", False)]
)
def test_ids_of_this_model(model: str, ours: bool) -> None:
    assert is_bm25(model) is ours


@pytest.mark.parametrize(
    ("item", "message"),
    [(Item(input_ids=[1, 2]), "item 5 has token ids and no text"), (Item("a\ud800"), "item 5 .*U\\+D800 at 1")],
)
def test_bad_items_are_named(item: Item, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        BM25.encode([Item("fine"), item], DOCUMENT, first=4)


def test_prompts_are_refused_and_none_is_fine() -> None:
    with pytest.raises(InvalidInputError, match="takes no prompt"):
        BM25.encode([Item("x")], EncodeSettings(("sparse",), prompt="query: "))
    assert BM25.encode([Item("x")], EncodeSettings(("sparse",), prompt=""))


def test_it_is_a_checkpoint_without_weights() -> None:
    checkpoint: Checkpoint = BM25
    assert checkpoint.spec.outputs == ("sparse",) and checkpoint.spec.heads["sparse"].dims == 2**32
    assert checkpoint.size_bytes(torch.float32) == 0
    assert list(checkpoint.load(torch.device("cpu"), torch.float32).parameters()) == []
    with pytest.raises(UnsupportedOperationError, match="dot product of their sparse vectors"):
        checkpoint.pairs(Item("q"), [Item("d")], PairSettings())
