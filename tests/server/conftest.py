"""What the server's tests share: one engine, one tiny model."""

import pytest

from support.tiny_models import save_bert
from tercet import Engine
from tercet_server.settings import Settings


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The directory of a tiny BERT."""
    folder = tmp_path_factory.mktemp("tiny")
    save_bert(folder)
    return str(folder)


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """The directory of a model that takes minutes for some thousand texts, and is nevertheless small."""
    folder = tmp_path_factory.mktemp("slow")
    save_bert(folder, hidden_size=256, intermediate_size=1024, num_attention_heads=4, num_hidden_layers=8)
    return str(folder)


@pytest.fixture(scope="module")
def engine():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


@pytest.fixture(scope="session")
def settings(tiny):
    """The tiny model, preloaded, under two names."""
    return Settings(models=(tiny,), aliases={"tiny": tiny, "org/tiny": tiny})
