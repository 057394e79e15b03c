"""The demo in each store: the same question gives the same answers as in memory."""

import pytest

from tercet import Engine
from tercet.errors import TercetError
from tercet_server.demo import stores
from tercet_server.demo.passages import read_passages, standard_library
from tercet_server.demo.search import Search, StoreSearch
from tercet_server.demo.stores import STORES, filled

pytestmark = pytest.mark.slow

MODULES = {"csv", "threading", "json", "tempfile", "difflib"}
QUESTIONS = ["read a csv file into dictionaries", "compare two texts", "call a function after some seconds", "¿dónde?"]


@pytest.fixture(scope="module")
def texts():
    return [passage.text for passage in read_passages(standard_library()) if passage.module in MODULES]


@pytest.fixture(scope="module")
def engine():
    with Engine(precision="float32", device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def in_memory(engine, texts):
    search = Search(engine, texts)
    return {question: {r.name: r.hits for r in search.ask(question)} for question in QUESTIONS}


@pytest.mark.parametrize("name", STORES)
def test_a_store_answers_as_memory_does(name, engine, texts, in_memory):
    steps = []
    with filled(name, engine, texts, lambda *step: steps.append(step)) as store:
        search = StoreSearch(engine, texts, store)
        for question in QUESTIONS:
            for ranking in search.ask(question):
                expected = in_memory[question][ranking.name]
                assert list(ranking.hits)[:5] == list(expected)[:5], (question, ranking.name)
                best = next(iter(expected))
                assert ranking.hits[best] == pytest.approx(expected[best], abs=1e-4)
    assert steps[-1] == (len(texts), len(texts))


def test_a_store_that_is_not_installed_is_said_so(engine, texts, monkeypatch):
    monkeypatch.setitem(stores.STORES, "nowhere", None)
    with (
        pytest.raises(TercetError, match=r"pip install 'tercet\[demo,nowhere\]'"),
        filled("nowhere", engine, [], print),
    ):
        pass
