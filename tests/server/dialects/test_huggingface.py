"""Hugging Face's `{"inputs": …}`, wherever it is sent."""

import numpy as np
import pytest

from tercet.errors import ModelLoadingError, ModelNotFoundError
from tercet_server.dialects import huggingface
from tercet_server.dialects.tei import unit
from tercet_server.json_body import to_json

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox", "words, words"]
PATHS = ["/m/prompted", "/m/prompted/", "/models/prompted", "/models/prompted/pipeline/feature-extraction"]
PATHS += ["/pipeline/feature-extraction/prompted"]


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_gives_the_pipelines_own_vectors(client, engine, models, path):
    answer = await client.post(path, json={"inputs": TEXTS, "options": {"wait_for_model": True, "use_cache": False}})
    expected = engine.encode(models["prompted"], TEXTS).dense
    np.testing.assert_array_equal(np.array(answer.json(), np.float32), expected)


async def test_the_root_is_the_default_model(client, engine, models):
    answer = await client.post("/", json={"inputs": TEXTS[0]})
    np.testing.assert_array_equal(np.array(answer.json(), np.float32), engine.encode(models["m3"], TEXTS[:1]).dense)


async def test_parameters_stand_beside_the_inputs(client, engine, models):
    body = {"inputs": TEXTS, "normalize": True, "prompt_name": "query", "dimensions": 8, "truncate": None}
    refused = await client.post("/models/prompted", json=body | {"truncation_direction": "Up"})
    assert refused.status_code == 400
    answer = await client.post("/models/prompted", json=body)
    expected = unit(engine.encode(models["prompted"], TEXTS, is_query=True, dimensions=8).dense)
    np.testing.assert_array_equal(np.array(answer.json(), np.float32), expected)


@pytest.mark.parametrize("path", ["/models/prompted", "/models/prompted/pipeline/sentence-similarity"])
async def test_an_object_asks_for_similarities(client, engine, models, path):
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}, "parameters": {}}
    vectors = unit(engine.encode(models["prompted"], TEXTS).dense)
    np.testing.assert_allclose((await client.post(path, json=body)).json(), vectors @ vectors[0], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/", "nothing", 400),
        ("/", '{"inputs": []}', 400),
        ("/", '{"inputs": {"source_sentence": "a"}}', 400),
        ("/models/org/none", '{"inputs": "a"}', 404),
        ("/", '{"truncate": false, "inputs": "' + "fox " * 2000 + '"}', 400),
    ],
)
async def test_mistakes(client, path, body, status):
    answer = await client.post(path, content=body)
    assert answer.status_code == status and answer.json().keys() == {"error"} and answer.json()["error"]


def test_a_model_under_way_says_how_long_it_takes():
    _, body = huggingface.error(ModelLoadingError("soon", retry_after_s=3.0))
    assert to_json(body) == b'{"error":"soon","estimated_time":3.0}'
    assert to_json(huggingface.error(ModelNotFoundError("no"))[1]) == b'{"error":"no"}'
