"""Bulk loads into plain collections: cut before they are embedded, and run again without doing anything twice."""

import numpy as np
import pytest

from support.chroma_calls import Counted, LimitedClient
from tercet import InvalidInputError, ModelMismatchError
from tercet.ingest import document_id
from tercet_chroma import TercetEmbeddingFunction, add_batched

TEXTS = [f"hello number {i}" for i in range(25)]


@pytest.fixture
def counted(engine):
    return Counted(engine)


@pytest.fixture
def collection(client, name, counted, bert):
    return client.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, counted))


def vectors(collection):
    found = collection.get(include=["embeddings"])
    return dict(zip(found["ids"], found["embeddings"], strict=True))


def test_everything_arrives_once_with_its_vector_and_metadata(client, collection, counted, engine, bert):
    seen = []
    metadatas = [{"i": i} for i in range(25)]
    added = add_batched(
        client, collection, TEXTS, metadatas=metadatas, batch_size=10, progress=lambda *done: seen.append(done)
    )
    assert added == 25 and counted.sizes == [10, 10, 5] and seen == [(10, 25), (20, 25), (25, 25)]
    stored, expected = vectors(collection), engine.encode(bert, TEXTS).dense
    actual = np.stack([stored[document_id(text)] for text in TEXTS])
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    found = collection.get(ids=document_id(TEXTS[7]))
    assert found["documents"] == [TEXTS[7]] and found["metadatas"][0]["i"] == 7
    assert collection.count() == 25


def test_running_again_embeds_only_what_is_new_or_changed(client, collection, counted):
    ids = [f"d{i}" for i in range(25)]
    add_batched(client, collection, TEXTS[:20], ids=ids[:20])
    counted.sizes.clear()
    changed = [*TEXTS[:3], "another text", *TEXTS[4:]]
    metadatas = [None, {"lang": "en"}, *[None] * 23]
    assert add_batched(client, collection, changed, ids=ids, metadatas=metadatas, batch_size=8) == 6
    assert counted.sizes == [1, 4, 1], "d3 in the first batch, the new ones at the end"
    found = collection.get(ids=["d1", "d3"])
    assert found["documents"] == [TEXTS[1], "another text"] and found["metadatas"][0]["lang"] == "en"
    assert add_batched(client, collection, changed, ids=ids, metadatas=metadatas) == 0 and collection.count() == 25


def test_a_document_changed_past_it_is_embedded_again(client, collection):
    add_batched(client, collection, ["first"], ids=["a"])
    collection.update(ids=["a"], documents=["second"])
    assert add_batched(client, collection, ["first"], ids=["a"]) == 1
    assert collection.get(ids="a")["documents"] == ["first"]


def test_batches_are_cut_to_the_clients_limit_before_they_are_embedded(client, collection, counted):
    add_batched(LimitedClient(client, 4), collection, iter(TEXTS[:10]), progress=lambda done, total: None)
    assert counted.sizes == [4, 4, 2]


def test_a_stream_is_not_read_further_than_needed(client, collection):
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            yield text

    def stop(done, total):
        assert total == done, "nobody knows how many are to come"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_batched(client, collection, texts(), batch_size=2, progress=stop)
    assert len(read) <= 8 and collection.count() == 2


def test_the_same_text_or_id_twice_is_one_record(client, collection):
    add_batched(client, collection, ["same", "same", "other"])
    assert collection.count() == 2
    add_batched(client, collection, ["first", "second"], ids=["x", "x"])
    assert collection.get(ids="x")["documents"] == ["second"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ids": ["a", "b", "c"]}, "differ in length"),
        ({"ids": ["a"]}, "differ in length"),
        ({"metadatas": [None]}, "differ in length"),
        ({"documents": "one text"}, "documents is one text"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"patience_s": -1}, "patience_s must be a number of seconds"),
    ],
)
def test_mistakes_say_what_to_do(ephemeral, name, engine, bert, columns, message):
    collection = ephemeral.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))
    with pytest.raises(InvalidInputError, match=message):
        add_batched(ephemeral, collection, **({"documents": ["x", "y"]} | columns))


def test_another_model_is_refused_before_anything_is_written(ephemeral, name, engine, bert, other_bert):
    function = TercetEmbeddingFunction(bert, engine)
    imposter = TercetEmbeddingFunction.build_from_config({**function.get_config(), "model": other_bert})
    collection = ephemeral.create_collection(name, embedding_function=imposter)
    with pytest.raises(ModelMismatchError):
        add_batched(ephemeral, collection, ["hello"])
    assert collection.count() == 0
