"""Dense vectors in Chroma's own collections: two sides, persisted, rebuilt, and never another model's."""

import json
import shutil

import numpy as np
import pytest

from tercet import Engine, InvalidInputError, ModelMismatchError, TransportError
from tercet_chroma import TercetEmbeddingFunction, check_collection

TEXTS = ["hello world", "the quick brown fox", "numbers 1999"]
NOWHERE = "http://127.0.0.1:9"


def stored(collection):
    found = collection.get(include=["embeddings"])
    return dict(zip(found["ids"], found["embeddings"], strict=True))


def test_documents_and_queries_are_encoded_as_what_they_are(client, name, engine, bert):
    function = TercetEmbeddingFunction(bert, engine, query_prompt="ask: ", document_prompt="doc: ", dimensions=8)
    collection = client.create_collection(name, embedding_function=function)
    collection.add(ids=["a", "b", "c"], documents=TEXTS)
    expected = engine.encode(bert, TEXTS, prompt="doc: ", dimensions=8).dense
    vectors = stored(collection)
    np.testing.assert_allclose(
        np.stack([vectors[key] for key in "abc"]), expected, rtol=1e-6
    )  # Chroma stores unit ones
    query = engine.encode(bert, "quick", is_query=True, prompt="ask: ", dimensions=8)["dense"]
    np.testing.assert_array_equal(function.embed_query(["quick"])[0], query)
    found = collection.query(query_texts="quick", n_results=3)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    cosine = {key: 1 - vector @ query / np.linalg.norm(query) for key, vector in zip("abc", unit, strict=True)}
    assert found["ids"][0] == sorted(cosine, key=cosine.get)
    np.testing.assert_allclose(found["distances"][0], sorted(cosine.values()), atol=1e-5)


def test_a_reopened_collection_is_asked_by_the_function_it_was_made_with(client, name, engine, bert):
    client.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine, query_prompt="ask: "))
    collection = client.get_collection(name)
    collection.add(ids=["a"], documents=TEXTS[:1])
    rebuilt = collection.configuration["embedding_function"]
    query = engine.encode(bert, "fox", is_query=True, prompt="ask: ")["dense"]
    np.testing.assert_array_equal(rebuilt.embed_query(["fox"])[0], query)
    assert collection.query(query_texts=["fox"])["ids"] == [["a"]]


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"dimensions": 8},
        {"output_dtype": "float16"},
        {"query_prompt": "q: ", "document_prompt": "d: "},
        {"inference": NOWHERE, "api_key_env": "TERCET_TEST_KEY"},
        {"device": "cpu", "precision": "float32", "memory_budget": "1GiB", "allow_download": False},
    ],
)
@pytest.mark.filterwarnings("ignore:.*could not be described")
def test_a_configuration_is_json_and_makes_the_same_function(bert, engine, choices, monkeypatch):
    monkeypatch.setenv("TERCET_TEST_KEY", "secret-value")
    reach = {} if {"inference", "device"} & choices.keys() else {"inference": engine}
    function = TercetEmbeddingFunction(bert, **{**choices, **reach})
    config = function.get_config()
    assert "secret-value" not in json.dumps(config)
    rebuilt = TercetEmbeddingFunction.build_from_config(json.loads(json.dumps(config)))
    assert rebuilt.get_config() == config and rebuilt.name() == function.name() == "tercet"
    TercetEmbeddingFunction.validate_config(config)


def test_making_one_reaches_nothing_and_failure_waits_for_the_embedding(ephemeral, name, engine, bert):
    function = TercetEmbeddingFunction(bert, NOWHERE)
    with pytest.warns(UserWarning, match="could not be described"):
        collection = ephemeral.create_collection(name, embedding_function=function)
    with pytest.raises(TransportError):
        collection.add(ids=["a"], documents=["hello"])
    reopened = ephemeral.get_collection(name)
    for use in (
        lambda: reopened.query(query_texts=["hello"]),
        lambda: check_collection(reopened, TercetEmbeddingFunction(bert, engine)),
    ):
        with pytest.raises(ModelMismatchError, match=r"created while .* could not be described.*collection.modify"):
            use()


@pytest.mark.filterwarnings("ignore:.*could not be described")
def test_a_missing_fingerprint_can_be_stored_later(ephemeral, name, engine, bert, tmp_path):
    late = str(tmp_path / "late")
    collection = ephemeral.create_collection(name, embedding_function=TercetEmbeddingFunction(late, engine))
    shutil.copytree(bert, late)
    with Engine(device="cpu") as fresh:  # the first one remembers for a while that there was nothing
        collection.modify(configuration={"embedding_function": TercetEmbeddingFunction(late, fresh)})
        reopened = ephemeral.get_collection(name)
        reopened.add(ids=["a"], documents=["hello"])
        assert reopened.query(query_texts=["hello"])["ids"] == [["a"]]


def test_another_model_under_the_same_name_is_refused_on_first_use(engine, bert, other_bert):
    config = TercetEmbeddingFunction(bert, engine).get_config()
    imposter = TercetEmbeddingFunction.build_from_config({**config, "model": other_bert})
    for use in (imposter, imposter.embed_query):
        with pytest.raises(ModelMismatchError, match=r"fingerprint: .*Use the model it was filled with, or fill a new"):
            use(["hello"])


def test_a_function_given_by_hand_can_be_checked(ephemeral, name, engine, bert, other_bert):
    collection = ephemeral.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))
    check_collection(collection, TercetEmbeddingFunction(bert, engine))
    for wrong in (
        TercetEmbeddingFunction(other_bert, engine),
        TercetEmbeddingFunction(bert, engine, dimensions=8),
        TercetEmbeddingFunction(bert, engine, query_prompt="q: "),
    ):
        with pytest.raises(ModelMismatchError):
            check_collection(collection, wrong)
    plain = ephemeral.create_collection(f"{name}-plain", embedding_function=None)
    with pytest.raises(InvalidInputError, match="made with the embedding function None, not with Tercet"):
        check_collection(plain, TercetEmbeddingFunction(bert, engine))


@pytest.mark.parametrize(
    "change", [{"inference": NOWHERE}, {"device": "cuda"}, {"precision": "bfloat16"}, {"api_key_env": "KEY"}]
)
def test_how_a_model_is_reached_may_change(engine, bert, change):
    function = TercetEmbeddingFunction(bert, engine)
    config = function.get_config()
    function.validate_config_update(config, {**config, **change})
    function.validate_config_update({**config, "fingerprint": None}, {**config, **change})


@pytest.mark.parametrize("change", [{"dimensions": 8}, {"query_prompt": "q: "}, {"model": "other"}])
def test_what_makes_the_vectors_may_not(engine, bert, other_bert, change):
    function = TercetEmbeddingFunction(bert, engine)
    old, unknown = function.get_config(), {"fingerprint": None}
    with pytest.raises(ModelMismatchError, match="cannot be compared"):
        function.validate_config_update({**old, **unknown}, {**old, **change, **unknown})
    choices = {name: value for name, value in change.items() if name != "model"}
    new = TercetEmbeddingFunction(other_bert if "model" in change else bert, engine, **choices).get_config()
    with pytest.raises(ModelMismatchError, match="cannot be compared"):
        function.validate_config_update(old, new)


def test_modify_goes_over_to_another_way_to_the_same_model(client, name, engine, bert):
    collection = client.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))
    moved = TercetEmbeddingFunction(bert, "local", device="cpu")
    collection.modify(configuration={"embedding_function": moved})
    assert client.get_collection(name).configuration_json["embedding_function"]["config"]["device"] == "cpu"


def test_a_vetoed_change_says_how_to_undo_what_chroma_stored_before_it_asked(client, name, engine, bert):
    collection = client.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))
    with pytest.raises(ModelMismatchError, match=r"stored the new function before it asked; put the old one back"):
        collection.modify(configuration={"embedding_function": TercetEmbeddingFunction(bert, engine, dimensions=8)})
    collection.modify(configuration={"embedding_function": collection.configuration["embedding_function"]})
    check_collection(client.get_collection(name), TercetEmbeddingFunction(bert, engine))


def test_another_kind_of_function_conflicts(ephemeral, name, engine, bert):
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    ephemeral.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))

    class Foreign(TercetEmbeddingFunction):
        @staticmethod
        def name():
            return SentenceTransformerEmbeddingFunction.name()

    for get in (ephemeral.get_collection, ephemeral.get_or_create_collection):
        with pytest.raises(ValueError, match="conflict: new: sentence_transformer vs persisted: tercet"):
            get(name, embedding_function=Foreign(bert, engine))


@pytest.mark.parametrize("dtype", ["int8", "ubinary"])
def test_types_that_chroma_refuses_are_refused_at_once(bert, dtype):
    with pytest.raises(InvalidInputError, match="Chroma holds float vectors; choose float32 or float16"):
        TercetEmbeddingFunction(bert, output_dtype=dtype)


def test_a_configuration_without_a_model_is_refused():
    with pytest.raises(InvalidInputError, match="names no model"):
        TercetEmbeddingFunction.validate_config({"inference": "local"})


def test_an_object_of_another_process_is_explained(bert, engine):
    config = {**TercetEmbeddingFunction(bert, engine).get_config(), "inference": "object:12"}
    with pytest.raises(InvalidInputError, match=r"object of another process.*'local' or a server's URL"):
        TercetEmbeddingFunction.build_from_config(config)(["hello"])
