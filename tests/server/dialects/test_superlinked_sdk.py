"""The Superlinked SDK, unmodified, on a live server with only its base URL changed.

It wants an older `websockets` than other clients do, so it is no dependency of the tests: install `sie-sdk` into a
directory of its own with `pip install --target` and name that in PYTHONPATH. Its bytes are in `test_native.py` anyway.
"""

import numpy as np
import pytest

from support.servers import live_server

sie_sdk = pytest.importorskip("sie_sdk", exc_type=ImportError)


@pytest.fixture(scope="module")
def server(models):
    aliases = ",".join(f"{name}={folder}" for name, folder in models.items())
    flags = {"models": models["m3"], "aliases": aliases, "device": "cpu", "precision": "float32"}
    with live_server(flags) as server:
        yield server


@pytest.fixture
def sdk(server):
    with sie_sdk.SIEClient(server.url) as client:
        yield client


def test_one_item_and_many(sdk, engine, models):
    one = sdk.encode("m3", {"id": "mine", "text": "hello world"})
    assert one["id"] == "mine" and one["dense"].dtype == np.float32 and one["timing"]["total_ms"] > 0
    np.testing.assert_array_equal(one["dense"], engine.encode(models["m3"], "hello world")["dense"])
    many = sdk.encode("m3", [{"text": "hello world"}, {"text": "fox"}], output_types=["dense", "sparse", "multivector"])
    expected = engine.encode(models["m3"], ["hello world", "fox"], output_types=["dense", "sparse", "multivector"])
    assert len(many) == 2
    for result, row in zip(many, expected, strict=True):
        np.testing.assert_array_equal(result["dense"], row["dense"])
        np.testing.assert_array_equal(result["sparse"]["indices"], row["sparse"].indices)
        np.testing.assert_array_equal(result["sparse"]["values"], row["sparse"].values)
        np.testing.assert_array_equal(result["multivector"], row["multivector"])


def test_queries_instructions_and_types(sdk, engine, models):
    asked = sdk.encode("prompted", {"text": "x"}, is_query=True)["dense"]
    np.testing.assert_array_equal(asked, engine.encode(models["prompted"], "x", is_query=True)["dense"])
    told = sdk.encode("prompted", {"text": "x"}, instruction="find: ")["dense"]
    np.testing.assert_array_equal(told, asked)
    assert sdk.encode("m3", {"text": "x"}, output_dtype="int8")["dense"].dtype == np.int8


def test_scores(sdk, engine, models):
    texts = ["hello world", "the quick brown fox", "numbers"]
    ranked = sdk.score("reranker", {"text": "fox"}, [{"text": text} for text in texts])
    expected = engine.score(models["reranker"], "fox", texts)
    assert [(row["item_id"], row["rank"]) for row in ranked["scores"]] == [
        (f"item-{row.index}", row.rank) for row in expected
    ]
    assert [row["score"] for row in ranked["scores"]] == [row.score for row in expected]
    named = sdk.score("reranker", {"id": "q", "text": "fox"}, [{"id": "a", "text": "fox"}])
    assert named["query_id"] == "q" and named["scores"][0]["item_id"] == "a"


def test_models(sdk):
    listed = {model["name"]: model for model in sdk.list_models()}
    assert listed["m3"]["loaded"] and set(listed["m3"]["outputs"]) == {"dense", "sparse", "multivector"}
    assert listed["m3"]["dims"]["dense"] > 0 and listed["m3"]["inputs"] == ["text"]
    assert sdk.get_model("m3")["state"] == "loaded"


def test_errors_are_of_the_sdks_own_classes(sdk):
    errors = pytest.importorskip("sie_sdk.client.errors")
    with pytest.raises(errors.RequestError) as caught:
        sdk.encode("no-such/model", {"text": "x"}, wait_for_capacity=False)
    assert (caught.value.code, caught.value.status_code) == ("MODEL_NOT_FOUND", 404)
    with pytest.raises(errors.RequestError, match="has no 'sparse' output") as caught:
        sdk.encode("prompted", {"text": "x"}, output_types=["sparse"])
    assert caught.value.code == "INVALID_INPUT"
    with pytest.raises(errors.RequestError, match="images"):
        sdk.encode("m3", {"images": [b"\xff\xd8\xff"]})


@pytest.mark.anyio
async def test_its_asynchronous_client(server, engine, models):
    async with sie_sdk.SIEAsyncClient(server.url) as client:
        result = await client.encode("m3", {"text": "hello"})
    np.testing.assert_array_equal(result["dense"], engine.encode(models["m3"], "hello")["dense"])
