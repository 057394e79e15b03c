"""Ollama's embeddings."""

import numpy as np
import pytest

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox"]


@pytest.mark.parametrize("given", [TEXTS, TEXTS[0]], ids=["texts", "text"])
@pytest.mark.parametrize("dimensions", [None, 6])
async def test_embed(client, engine, models, given, dimensions):
    body = {"model": "prompted", "input": given, "dimensions": dimensions, "options": {"x": 1}, "keep_alive": "5m"}
    answer = (await client.post("/api/embed", json=body)).json()
    expected = engine.encode(
        models["prompted"], [*([given] if isinstance(given, str) else given)], dimensions=dimensions
    )
    assert answer.keys() == {"model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"}
    np.testing.assert_array_equal(np.array(answer["embeddings"], np.float32), expected.dense)
    assert answer["model"] == "prompted" and answer["prompt_eval_count"] == expected.tokens.sum()
    assert isinstance(answer["total_duration"], int) and answer["total_duration"] > 0


async def test_older_clients_send_one_prompt(client, engine, models):
    answer = await client.post("/api/embeddings", json={"model": "m3", "prompt": TEXTS[0]})
    assert answer.json().keys() == {"embedding"}
    np.testing.assert_array_equal(
        np.array(answer.json()["embedding"], np.float32), engine.encode(models["m3"], TEXTS[0])["dense"]
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ('{"input": []}', 400),
        ('{"input": 7}', 400),
        ('{"model": "org/none", "input": "a"}', 404),
        ('{"truncate": false, "input": "' + "fox " * 2000 + '"}', 400),
    ],
)
async def test_mistakes(client, body, status):
    answer = await client.post("/api/embed", content=body)
    assert answer.status_code == status and answer.json().keys() == {"error"} and answer.json()["error"]
