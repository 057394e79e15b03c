"""What the tests share: tiny models with hub names, an engine, a server of the same models, and Weaviate's stub."""

import json

import pytest

from support.hub_cache import cached
from support.servers import live_server
from support.tiny_models import save_bert, save_m3
from support.weaviate_cases import KEY
from support.weaviate_stub import weaviate_stub
from tercet import Engine

PROMPTS = {"prompts": {"query": "find: ", "document": "a page: "}}


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A hub cache with a model of all outputs, one with prompts, another like it, and a reranker."""
    cache = tmp_path_factory.mktemp("hub")
    save_m3(cached(cache, "tiny/m3"))
    for seed, name in enumerate(("tiny/bert", "tiny/other")):
        folder = cached(cache, name)
        save_bert(folder, seed=seed)
        (folder / "config_sentence_transformers.json").write_text(json.dumps(PROMPTS))
    save_bert(cached(cache, "tiny/reranker"), seed=2, architecture="BertForSequenceClassification", num_labels=1)
    return cache


@pytest.fixture(scope="session")
def engine(cache):
    with Engine(device="cpu", precision="float32", cache_dir=cache) as engine:
        yield engine


@pytest.fixture(scope="session")
def server(cache):
    """A server of the same models, for those who have the key; `colbert-v3` is another name of tiny/m3."""
    flags = {
        "models": ("tiny/m3", "tiny/bert", "tiny/reranker"),
        "aliases": {"colbert-v3": "tiny/m3"},
        "api_keys": (KEY,),
        "cache_dir": str(cache),
        "device": "cpu",
        "precision": "float32",
    }
    with live_server(flags) as server:
        yield server


@pytest.fixture
def stub():
    with weaviate_stub() as stub:
        yield stub


@pytest.fixture
def client(stub):
    with stub.connect() as client:
        yield client
