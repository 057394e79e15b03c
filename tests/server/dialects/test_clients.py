"""Real clients, unmodified, against a server on a socket: they get the engine's own vectors."""

import asyncio
import base64
import json
import os
import subprocess
import sys

import chromadb.utils.embedding_functions as chroma
import cohere
import httpx
import numpy as np
import ollama
import openai
import pytest
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError
from lancedb.embeddings import get_registry

from support.loopback import loopback
from tercet import Item
from tercet_server.app import create_app
from tercet_server.dialects.tei import unit

TEXTS = ["hello world", "the quick brown fox", "words, words"]
KEY = "a-key-of-the-server"


@pytest.fixture(scope="module")
def url(engine, served):
    with loopback(create_app(engine, served)) as url:
        yield url
    close_session()  # Hugging Face's clients share one


@pytest.fixture
def dense(engine, models):
    """The engine's vectors of the texts."""

    def encode(items=TEXTS, model="prompted", **choices):
        return engine.encode(models[model], items, **choices).dense

    return encode


def equal(given, expected):
    np.testing.assert_array_equal(np.array(given, np.float32), expected)


# OpenAI


@pytest.fixture
def openai_client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("choices", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
@pytest.mark.parametrize("dimensions", [{}, {"dimensions": 8}])
def test_openai_vectors(openai_client, dense, choices, dimensions):
    answer = openai_client.embeddings.create(model="prompted", input=TEXTS, **choices, **dimensions)
    rows = [row.embedding for row in answer.data]
    if choices.get("encoding_format") == "base64":  # who names it decodes it
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    equal(rows, dense(**dimensions))
    assert answer.model == "prompted" and answer.usage.total_tokens == answer.usage.prompt_tokens > len(TEXTS)


@pytest.mark.parametrize("tokens", [[2, 40, 41, 3], [[2, 40, 3], [2, 41, 42, 43, 3]]])
def test_openai_token_ids(openai_client, engine, models, tokens):
    answer = openai_client.embeddings.create(model="m3", input=tokens)
    lists = tokens if isinstance(tokens[0], list) else [tokens]
    equal([row.embedding for row in answer.data], engine.encode(models["m3"], [Item(input_ids=i) for i in lists]).dense)


def test_openai_asynchronous(url, dense):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            return await asyncio.gather(*(client.embeddings.create(model="prompted", input=text) for text in TEXTS))

    answers = asyncio.run(ask())
    np.testing.assert_allclose([answer.data[0].embedding for answer in answers], dense(), atol=1e-6)


def test_openai_errors(openai_client):
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.embeddings.create(model="org/none", input="a")
    assert caught.value.code == "model_not_found" and "org/none" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model="m3", input=[])
    assert caught.value.code == "invalid_input" and caught.value.type == "invalid_request_error"


def test_openai_lists_models(openai_client, models):
    listed = {model.id: model for model in openai_client.models.list()}
    assert listed.keys() >= models.keys() and {model.object for model in listed.values()} == {"model"}
    assert openai_client.models.retrieve("prompted").id == "prompted"


# Cohere


@pytest.fixture
def cohere_v2(url):
    with httpx.Client() as transport:
        yield cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=transport)


@pytest.fixture
def cohere_v1(url):
    with httpx.Client() as transport:
        yield cohere.Client(api_key=KEY, base_url=url, httpx_client=transport)


@pytest.mark.parametrize(("input_type", "is_query"), [("search_document", False), ("search_query", True)])
def test_cohere_embed(cohere_v2, dense, input_type, is_query):
    types = ["float", "int8", "ubinary", "base64"]
    answer = cohere_v2.embed(model="prompted", texts=TEXTS, input_type=input_type, embedding_types=types)
    expected = dense(is_query=is_query)
    equal(answer.embeddings.float_, expected)
    equal([np.frombuffer(base64.b64decode(row), "<f4") for row in answer.embeddings.base64], expected)
    np.testing.assert_array_equal(answer.embeddings.int8, dense(is_query=is_query, output_dtype="int8"))
    np.testing.assert_array_equal(answer.embeddings.ubinary, dense(is_query=is_query, output_dtype="ubinary"))
    assert answer.embeddings.uint8 is None and answer.texts == TEXTS


# cohere's joining of batches:
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
def test_cohere_first_embed(cohere_v1, dense):
    plain = cohere_v1.embed(model="prompted", texts=TEXTS, input_type="search_document")
    equal(plain.embeddings, dense())
    typed = cohere_v1.embed(model="prompted", texts=TEXTS, input_type="search_query", embedding_types=["float"])
    equal(typed.embeddings.float_, dense(is_query=True))


def test_cohere_rerank(cohere_v2, cohere_v1, engine, models):
    expected = engine.score(models["reranker"], "a fox", TEXTS, top_k=2)
    second = cohere_v2.rerank(model="reranker", query="a fox", documents=TEXTS, top_n=2)
    first = cohere_v1.rerank(model="reranker", query="a fox", documents=TEXTS, top_n=2, return_documents=True)
    for answer in (second, first):
        assert [(row.index, row.relevance_score) for row in answer.results] == [(s.index, s.score) for s in expected]
    assert [row.document.text for row in first.results] == [TEXTS[s.index] for s in expected]


def test_cohere_errors(cohere_v2):
    with pytest.raises(cohere.NotFoundError) as caught:
        cohere_v2.embed(model="org/none", texts=TEXTS, input_type="search_query", embedding_types=["float"])
    assert "org/none" in caught.value.body["message"]
    with pytest.raises(cohere.BadRequestError):
        cohere_v2.embed(model="m3", texts=["fox " * 2000], input_type="search_query", truncate="NONE")


# Hugging Face


@pytest.mark.parametrize("path", ["m/prompted", "m/prompted/embed", "models/prompted"])
def test_inference_client_features(url, dense, path):
    with InferenceClient(base_url=f"{url}/{path}") as client:
        equal(client.feature_extraction(TEXTS, normalize=False), dense())
        query = client.feature_extraction(TEXTS[0], normalize=False, prompt_name="query")
        equal(query, dense(TEXTS[:1], is_query=True))
        equal(client.feature_extraction(TEXTS, normalize=True), unit(dense()))


@pytest.mark.parametrize("path", ["", "similarity", "models/m3"])
def test_inference_client_similarity(url, dense, path):
    vectors = dense(model="m3")
    given = InferenceClient(base_url=f"{url}/{path}").sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    np.testing.assert_allclose(given, vectors @ vectors[0], atol=1e-6)


def test_inference_client_errors(url):
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(base_url=f"{url}/models/org/none").feature_extraction("a")
    assert caught.value.response.status_code == 404 and "org/none" in str(caught.value)


# Chroma's and LanceDB's own functions; none of them closes its connections


def test_chroma_embedding_server(url, dense):
    function = chroma.HuggingFaceEmbeddingServer(url=f"{url}/m/m3/embed")
    with function._session:
        equal(function(TEXTS), dense(model="m3"))


def test_chroma_openai(url, dense, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    function = chroma.OpenAIEmbeddingFunction(model_name="prompted", api_base=f"{url}/v1")
    with function.client:
        equal(function(TEXTS), dense())


def test_chroma_cohere(url, dense):
    """In a process of its own: the address can only be set before cohere is imported."""
    script = (
        "import json, sys; from chromadb.utils.embedding_functions import CohereEmbeddingFunction\n"
        "vectors = CohereEmbeddingFunction(model_name='prompted')(json.loads(sys.argv[1]))\n"
        "print(json.dumps([row.tolist() for row in vectors]))"
    )
    environment = os.environ | {"COHERE_API_KEY": KEY, "CO_API_URL": url}
    command = [sys.executable, "-c", script, json.dumps(TEXTS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    equal(json.loads(done.stdout), dense())


def test_chroma_ollama(url, dense):
    function = chroma.OllamaEmbeddingFunction(url=url, model_name="prompted")
    with function._client._client:
        equal(function(TEXTS), dense())


def test_lancedb_openai(url, dense, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    function = get_registry().get("openai").create(name="text-embedding-ada-002", base_url=f"{url}/m/prompted/v1")
    with function._openai_client:
        equal(function.generate_embeddings(TEXTS), dense())


# Ollama


def test_ollama(url, dense):
    client = ollama.Client(host=url)
    with client._client:
        equal(client.embed(model="prompted", input=TEXTS, dimensions=8).embeddings, dense(dimensions=8))
        equal(client.embeddings(model="prompted", prompt=TEXTS[0]).embedding, dense(TEXTS[:1])[0])
        with pytest.raises(ollama.ResponseError, match="org/none") as caught:
            client.embed(model="org/none", input=TEXTS)
    assert caught.value.status_code == 404
