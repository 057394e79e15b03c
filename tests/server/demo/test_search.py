"""The four rankings, by the real engine over a few modules' passages."""

from collections.abc import Iterator

import pytest

from tercet import Engine
from tercet_server.demo.passages import read_passages, standard_library
from tercet_server.demo.search import Ranking, Search

pytestmark = pytest.mark.slow

MODULES = {"csv", "threading", "json", "tempfile", "difflib"}


@pytest.fixture(scope="module")
def passages() -> list[str]:
    everything = read_passages(standard_library())
    return [passage.path for passage in everything if passage.module in MODULES]


@pytest.fixture(scope="module")
def search(passages: list[str]) -> Iterator[Search]:
    texts = {passage.path: passage.text for passage in read_passages(standard_library())}
    steps: list[tuple[int, int]] = []
    with Engine(precision="float32", device="cpu") as engine:
        yield Search(engine, [texts[path] for path in passages], lambda *step: steps.append(step))
    assert steps[-1] == (len(passages), len(passages))


def best(rankings: list[Ranking], passages: list[str]) -> dict[str, str]:
    return {ranking.name: passages[next(iter(ranking.hits))] for ranking in rankings}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("read a csv file into dictionaries", "csv.DictReader"),
        ("make a temporary directory that cleans up after itself", "tempfile.TemporaryDirectory"),
    ],
)
def test_the_answer_comes_first(search: Search, passages: list[str], question: str, answer: str) -> None:
    first = best(search.ask(question), passages)
    assert list(first) == ["dense", "sparse", "hybrid", "hybrid + rerank"]
    assert first["dense"] == first["hybrid"] == first["hybrid + rerank"] == answer


def test_rankings_are_best_first_and_build_on_each_other(search: Search) -> None:
    dense, sparse, hybrid, reranked = search.ask("call a function after some seconds")
    for ranking in (dense, sparse, hybrid, reranked):
        assert list(ranking.hits.values()) == sorted(ranking.hits.values(), reverse=True)
    assert set(hybrid.hits) == set(dense.hits) | set(sparse.hits)
    assert set(reranked.hits) == set(list(hybrid.hits)[:30])
    assert dense.elapsed_ms + sparse.elapsed_ms <= hybrid.elapsed_ms <= reranked.elapsed_ms


def test_a_question_without_known_words_is_answered_by_meaning_alone(search: Search) -> None:
    dense, sparse, hybrid, _ = search.ask("¿dónde?")
    assert sparse.hits == {} and set(hybrid.hits) == set(dense.hits)
