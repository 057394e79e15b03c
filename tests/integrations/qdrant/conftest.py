"""What the tests of this adapter share: one engine, and models on a disk."""

import pytest


@pytest.fixture(scope="session")
def engine():
    from tercet import Engine

    with Engine(device="cpu", precision="float32") as shared:
        yield shared


@pytest.fixture(scope="session")
def m3(tmp_path_factory):
    """A model of all three outputs."""
    from support.tiny_models import save_m3

    folder = tmp_path_factory.mktemp("qdrant-m3")
    save_m3(folder)
    return str(folder)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A model of dense vectors, which are not of length 1."""
    from support.tiny_models import save_bert

    folder = tmp_path_factory.mktemp("qdrant-bert")
    save_bert(folder)
    return str(folder)
