"""Models and databases for the tests of the LanceDB adapter."""

import lancedb
import pytest

from support.lancedb_tables import save_models
from tercet import Engine


@pytest.fixture(scope="package")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("hub")
    save_models(cache)
    return cache


@pytest.fixture(scope="package")
def engine(cache):
    with Engine(device="cpu", precision="float32", cache_dir=cache) as engine:
        yield engine


@pytest.fixture
def db(tmp_path):
    return lancedb.connect(tmp_path / "db")
