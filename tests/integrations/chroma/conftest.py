"""An engine with tiny models, and Chroma in each of the ways that it runs."""

from uuid import uuid4

import pytest

pytest.importorskip("torch")
pytest.importorskip("chromadb")

import chromadb

from support.chroma_server import chroma_server
from support.hub_cache import cached
from support.servers import live_server
from support.tiny_models import save_bert, save_m3
from tercet import Engine


@pytest.fixture(scope="package")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_bert(folder)
    return str(folder)


@pytest.fixture(scope="package")
def other_bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    save_bert(folder, seed=1)
    return str(folder)


@pytest.fixture(scope="package")
def m3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m3")
    save_m3(folder)
    return str(folder)


@pytest.fixture(scope="package")
def engine():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


@pytest.fixture(scope="package")
def ephemeral():
    return chromadb.EphemeralClient()


@pytest.fixture(scope="package")
def persistent(tmp_path_factory):
    return chromadb.PersistentClient(tmp_path_factory.mktemp("chroma"))


@pytest.fixture(scope="package")
def served(tmp_path_factory):
    with chroma_server(tmp_path_factory.mktemp("served")) as server:
        yield server.client()


@pytest.fixture(params=["ephemeral", "persistent", "served"])
def client(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def name():
    """Return a collection's name that no other test has."""
    return f"docs-{uuid4().hex}"


@pytest.fixture(scope="package")
def live(tmp_path_factory):
    """Return the address of a running server that has the model tiny/bert, and the bundled one as every server."""
    cache = tmp_path_factory.mktemp("hub")
    save_bert(cached(cache, "tiny/bert"))
    flags = {"models": "tiny/bert", "cache_dir": str(cache), "device": "cpu", "precision": "float32"}
    with live_server(flags) as server:
        yield server.url
