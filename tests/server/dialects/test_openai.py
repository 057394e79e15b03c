"""OpenAI's embeddings: shapes, vectors bit for bit, errors."""

import base64

import numpy as np
import pytest

from tercet import Item
from tercet.errors import (
    AuthenticationError,
    ForbiddenError,
    InvalidInputError,
    ModelLoadingError,
    ModelNotFoundError,
    OverloadedError,
    TercetError,
)
from tercet_server.dialects import openai

pytestmark = pytest.mark.anyio
PATH = "/v1/embeddings"
TEXTS = ["hello world", "the quick brown fox", "words, words"]


def vectors(answer):
    """The vectors of an answer, in order."""
    assert answer.status_code == 200, answer.text
    rows = [row["embedding"] for row in answer.json()["data"]]
    if isinstance(rows[0], str):
        return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    return np.array(rows, np.float32)


async def test_the_shape_is_openais(client, engine, models):
    answer = (await client.post(PATH, json={"model": "prompted", "input": TEXTS, "user": "me"})).json()
    tokens = int(engine.encode(models["prompted"], TEXTS).tokens.sum())
    assert answer.keys() == {"object", "data", "model", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "prompted")
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    assert all(
        row.keys() == {"object", "index", "embedding"} and row["object"] == "embedding" for row in answer["data"]
    )


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
@pytest.mark.parametrize("dimensions", [None, 5])
async def test_vectors_are_the_engines_bit_for_bit(client, engine, models, encoding, dimensions):
    body = {"model": "prompted", "input": TEXTS, "dimensions": dimensions, **encoding}
    given = vectors(await client.post(PATH, json=body))
    np.testing.assert_array_equal(given, engine.encode(models["prompted"], TEXTS, dimensions=dimensions).dense)


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("hello world", ["hello world"]),
        ([2, 40, 41, 3], [Item(input_ids=[2, 40, 41, 3])]),
        ([[2, 40, 3], [2, 41, 42, 3]], [Item(input_ids=[2, 40, 3]), Item(input_ids=[2, 41, 42, 3])]),
        ([[2, 40, 3], "hello"], [Item(input_ids=[2, 40, 3]), "hello"]),
    ],
    ids=["text", "token ids", "lists of token ids", "mixed"],
)
async def test_inputs_of_every_form(client, engine, models, given, items):
    answer = await client.post(PATH, json={"model": "m3", "input": given})
    np.testing.assert_array_equal(vectors(answer), engine.encode(models["m3"], items).dense)


@pytest.mark.parametrize("mark", [{"task": "retrieval.query"}, {"input_type": "query"}])
async def test_queries_are_told_from_passages(client, engine, models, mark):
    given = vectors(await client.post(PATH, json={"model": "prompted", "input": TEXTS, **mark}))
    np.testing.assert_array_equal(given, engine.encode(models["prompted"], TEXTS, is_query=True).dense)
    passages = vectors(await client.post(PATH, json={"model": "prompted", "input": TEXTS, "task": "retrieval.passage"}))
    assert np.abs(given - passages).max() > 1e-3


async def test_the_paths_model_goes_before_the_bodys(client, engine, models):
    body = {"input": TEXTS, "model": "text-embedding-3-small"}
    answer = await client.post(f"/m/m3{PATH}", json=body)
    np.testing.assert_array_equal(vectors(answer), engine.encode(models["m3"], TEXTS).dense)
    unnamed = await client.post(PATH, json={"input": TEXTS})
    np.testing.assert_array_equal(vectors(unnamed), vectors(answer))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_input"),
        (b"", 400, "invalid_input"),
        (b'{"input": null}', 400, "invalid_input"),
        (b'{"input": []}', 400, "invalid_input"),
        (b'{"input": [1, "a"]}', 400, "invalid_input"),
        (b'{"input": ["a", 1]}', 400, "invalid_input"),
        (b'{"input": [[]]}', 400, "invalid_input"),
        (b'{"input": [99999999]}', 400, "invalid_input"),
        (b'{"input": "a", "dimensions": 0}', 400, "invalid_input"),
        (b'{"input": "a", "encoding_format": "hex"}', 400, "invalid_input"),
        (b'{"input": "a", "model": "org/none"}', 404, "model_not_found"),
        (b'{"input": "%s", "truncate": false}' % (b"fox " * 2000), 400, "invalid_input"),
    ],
)
async def test_mistakes_are_told_as_openai_does(client, body, status, code):
    answer = await client.post(PATH, content=body)
    fault = answer.json()["error"]
    assert (answer.status_code, fault["code"], fault["type"]) == (status, code, "invalid_request_error")
    assert fault.keys() == {"message", "type", "param", "code"} and fault["message"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (InvalidInputError, "invalid_request_error"),
        (ModelNotFoundError, "invalid_request_error"),
        (AuthenticationError, "authentication_error"),
        (ForbiddenError, "permission_error"),
        (OverloadedError, "rate_limit_error"),
        (ModelLoadingError, "server_error"),
        (TercetError, "server_error"),
    ],
)
def test_each_error_has_its_type(kind, name):
    status, body = openai.error(kind("why"))
    assert (status, body.error.type, body.error.message) == (kind.status, name, "why")
