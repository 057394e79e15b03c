"""Text Embeddings Inference: every route, and its kinds of errors."""

import numpy as np
import pytest
from scipy.special import expit

from tercet import Item
from tercet.errors import CheckpointError, DeadlineExceededError, EngineClosedError, OutOfMemoryError, OverloadedError
from tercet_server.dialects import tei
from tercet_server.dialects.tei import unit

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox", "words, words"]
LONG = "fox " * 2000


async def floats(client, path, body):
    """The answer of a 200 as one float32 array."""
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json(), np.float32)


@pytest.mark.parametrize(
    ("inputs", "items"),
    [
        (TEXTS, TEXTS),
        ("hello world", ["hello world"]),
        ([2, 40, 3], [Item(input_ids=[2, 40, 3])]),
        ([[2, 40, 3], "hello"], [Item(input_ids=[2, 40, 3]), "hello"]),
    ],
)
async def test_embed_is_the_engines_and_always_in_rows(client, engine, models, inputs, items):
    given = await floats(client, "/embed", {"inputs": inputs, "dimensions": 6})
    np.testing.assert_array_equal(given, engine.encode(models["m3"], items, dimensions=6).dense)


async def test_vectors_are_normalized_unless_the_caller_says_no(client, engine, models):
    dense = engine.encode(models["prompted"], TEXTS).dense
    norms = np.linalg.norm(dense, axis=1, keepdims=True)
    assert np.abs(norms - 1).max() > 0.1
    given = await floats(client, "/m/prompted/embed", {"inputs": TEXTS})
    np.testing.assert_allclose(given, dense / norms, atol=1e-7)
    given = await floats(client, "/m/prompted/embed", {"inputs": TEXTS, "normalize": False})
    np.testing.assert_array_equal(given, dense)


def test_unit_leaves_unit_vectors_as_they_are():
    vectors = np.array([[0.6, 0.8], [3.0, 4.0], [0.0, 0.0]], np.float32)
    made = unit(vectors)
    assert made.dtype == np.float32 and made[0].tobytes() == vectors[0].tobytes()
    np.testing.assert_allclose(made[1:], [[0.6, 0.8], [0, 0]], atol=1e-7)


@pytest.mark.parametrize(
    ("model", "name", "choices"),
    [
        ("prompted", "query", {"is_query": True}),
        ("prompted", "document", {"prompt": "document"}),
        ("prompted", "clustering", {"prompt": "clustering"}),
        ("m3", "query", {"is_query": True}),
    ],
)
async def test_prompts_by_their_names(client, engine, models, model, name, choices):
    body = {"inputs": TEXTS, "prompt_name": name, "normalize": False}
    given = await floats(client, f"/m/{model}/embed", body)
    np.testing.assert_array_equal(given, engine.encode(models[model], TEXTS, **choices).dense)


@pytest.mark.parametrize(("direction", "side"), [("Left", "start"), ("Right", "end"), ("left", "start")])
async def test_long_texts_are_cut_on_the_side_that_is_named(client, engine, models, direction, side):
    text = "hello world " * 300 + "the lazy dog " * 300
    given = await floats(client, "/embed", {"inputs": text, "truncate": True, "truncation_direction": direction})
    np.testing.assert_array_equal(given, engine.encode(models["m3"], [text], truncate=side).dense)


async def test_embed_all_and_embed_sparse(client, engine, models):
    expected = engine.encode(models["m3"], TEXTS, output_types=["multivector", "sparse"])
    matrices = (await client.post("/embed_all", json={"inputs": TEXTS})).json()
    for mine, theirs in zip(matrices, expected.multivector, strict=True):
        np.testing.assert_array_equal(np.array(mine, np.float32), theirs)
    sparse = (await client.post("/embed_sparse", json={"inputs": TEXTS})).json()
    for mine, theirs in zip(sparse, expected.sparse, strict=True):
        assert [entry["index"] for entry in mine] == theirs.indices.tolist()
        np.testing.assert_array_equal(np.array([entry["value"] for entry in mine], np.float32), theirs.values)


async def test_similarity_is_the_cosine(client, engine, models):
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}}
    given = await floats(client, "/m/prompted/similarity", body)
    vectors = unit(engine.encode(models["prompted"], TEXTS).dense)
    np.testing.assert_allclose(given, vectors @ vectors[0], atol=1e-6)
    queries = unit(engine.encode(models["prompted"], TEXTS, is_query=True).dense)
    given = await floats(client, "/m/prompted/similarity", body | {"parameters": {"prompt_name": "query"}})
    np.testing.assert_allclose(given, queries @ queries[0], atol=1e-6)


@pytest.mark.parametrize("raw", [True, False])
async def test_rerank_sorts_logits_or_their_sigmoid(client, engine, models, raw):
    logits = engine.score(models["reranker"], "a fox", TEXTS, options={"activation": "identity"})
    answer = (await client.post("/rerank", json={"query": "a fox", "texts": TEXTS, "raw_scores": raw})).json()
    assert [row.keys() for row in answer] == [{"index", "score"}] * 3
    assert [row["index"] for row in answer] == logits.order.tolist()
    expected = [s.score if raw else expit(s.score) for s in logits]
    np.testing.assert_allclose([row["score"] for row in answer], expected, atol=1e-6)


async def test_rerank_gives_texts_back_if_asked(client):
    answer = (await client.post("/rerank", json={"query": "a fox", "texts": TEXTS, "return_text": True})).json()
    assert [row["text"] for row in answer] == [TEXTS[row["index"]] for row in answer]


async def test_embeddings_rerank_by_their_similarity(client, engine, models):
    answer = (await client.post("/m/m3/rerank", json={"query": "a fox", "texts": TEXTS})).json()
    expected = engine.score(models["m3"], "a fox", TEXTS)
    assert [(row["index"], np.float32(row["score"])) for row in answer] == [(s.index, s.score) for s in expected]


async def test_predict_scores_pairs_in_request_order(client, engine, models):
    pairs = [["a fox", TEXTS[0]], ["a dog", TEXTS[1]], ["a fox", TEXTS[2]]]
    answer = (await client.post("/predict", json={"inputs": pairs, "raw_scores": True})).json()
    expected = [
        engine.score(models["reranker"], q, [t], options={"activation": "identity"}).scores[0] for q, t in pairs
    ]
    assert [[p["label"] for p in row] for row in answer] == [["LABEL_0"]] * 3
    np.testing.assert_allclose([row[0]["score"] for row in answer], expected, atol=1e-6)
    single = (await client.post("/predict", json={"inputs": pairs[1]})).json()
    np.testing.assert_allclose(single[0]["score"], expit(expected[1]), atol=1e-6)


async def test_tokens_say_which_characters_they_are(client):
    text = "hello, Über [SEP] world"
    (tokens,) = (await client.post("/m/prompted/tokenize", json={"inputs": text})).json()
    assert all(token.keys() == {"id", "text", "special", "start", "stop"} for token in tokens)
    first, *inner, last = tokens
    assert first == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert (last["text"], last["special"], last["start"]) == ("[SEP]", True, None)
    assert all(token["text"] == text[token["start"] : token["stop"]] for token in inner)
    assert [token["special"] for token in inner if token["text"] == "[SEP]"] == [True]
    (bare,) = (await client.post("/m/prompted/tokenize", json={"inputs": [text], "add_special_tokens": False})).json()
    assert bare == inner


async def test_prompts_are_tokenised_in_front(client):
    body = {"inputs": "world", "add_special_tokens": False}
    (alone,) = (await client.post("/m/prompted/tokenize", json=body | {"inputs": "find: world"})).json()
    (prompted,) = (await client.post("/m/prompted/tokenize", json=body | {"prompt_name": "query"})).json()
    assert prompted == alone


async def test_tokens_are_those_that_the_model_reads(client):
    (tokens,) = (await client.post("/tokenize", json={"inputs": TEXTS[1]})).json()
    given = await floats(client, "/embed", {"inputs": [token["id"] for token in tokens]})
    np.testing.assert_array_equal(given, await floats(client, "/embed", {"inputs": TEXTS[1]}))


async def test_decode_is_the_way_back(client):
    (tokens,) = (await client.post("/m/prompted/tokenize", json={"inputs": "hello world"})).json()
    ids = [token["id"] for token in tokens]
    assert (await client.post("/m/prompted/decode", json={"ids": ids})).json() == ["hello world"]
    kept = await client.post("/m/prompted/decode", json={"ids": [ids, ids], "skip_special_tokens": False})
    assert kept.json() == ["[CLS] hello world [SEP]"] * 2


async def test_info_says_what_answers(client, models):
    info = (await client.get("/m/reranker/info")).json()
    assert (info["model_id"], info["model_dtype"], info["model_sha"]) == ("reranker", "float32", None)
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    default = (await client.get("/info")).json()
    assert default["model_id"] == models["m3"] and default["model_type"] == {"embedding": {"pooling": "cls"}}
    assert default["max_input_length"] > 0 and default["max_batch_tokens"] > 0 and default["auto_truncate"] is True


async def test_health(client):
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", b"{", 422, "Validation"),
        ("/embed", {}, 422, "Validation"),
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed", {"inputs": ""}, 400, "Empty"),
        ("/embed", {"inputs": LONG, "truncate": False}, 422, "Validation"),
        ("/embed", {"inputs": "a", "prompt_name": "poem"}, 422, "Validation"),
        ("/embed", {"inputs": [999_999]}, 422, "Validation"),
        ("/m/org/none/embed", {"inputs": "a"}, 404, "Validation"),
        ("/m/prompted/embed_sparse", {"inputs": "a"}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty"),
        ("/predict", {"inputs": []}, 400, "Empty"),
        ("/predict", {"inputs": "one text"}, 422, "Validation"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation"),
        ("/m/m3/predict", {"inputs": ["a", "b"]}, 422, "Validation"),
        ("/decode", {"ids": [[1], 2]}, 422, "Validation"),
        ("/decode", {"ids": [-1]}, 422, "Validation"),
        ("/m/bm25/tokenize", {"inputs": "a"}, 422, "Validation"),
    ],
)
async def test_mistakes(client, path, body, status, kind):
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = await client.post(path, **sent)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind), answer.text
    assert answer.json().keys() == {"error", "error_type"} and answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (OverloadedError, (429, "Overloaded")),
        (EngineClosedError, (503, "Unhealthy")),
        (CheckpointError, (424, "Backend")),
        (OutOfMemoryError, (424, "Backend")),
        (DeadlineExceededError, (504, "Backend")),
    ],
)
def test_each_error_has_its_status(kind, expected):
    status, body = tei.error(kind("why"))
    assert (status, body.error_type, body.error) == (*expected, "why")
