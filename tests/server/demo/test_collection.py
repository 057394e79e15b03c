import math

import numpy as np
import pytest

from tercet.types import SparseBatch, SparseVector
from tercet_server.demo.collection import Collection

DOCUMENTS = [{1: 1.0, 5: 2.0}, {5: 0.5}, {}, {5: 1.0, 9: 1.5}]


def vector(weights: dict[int, float]) -> SparseVector:
    return SparseVector(np.array(list(weights), np.uint32), np.array(list(weights.values()), np.float32))


@pytest.fixture
def collection() -> Collection:
    angles = np.array([0.0, 0.5, 1.0, 1.5])
    dense = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return Collection(dense, SparseBatch.from_rows([vector(document) for document in DOCUMENTS], 2**32))


def test_nearest_are_those_at_the_smallest_angle(collection: Collection) -> None:
    query = np.array([math.cos(1.1), math.sin(1.1)], np.float32)
    hits = collection.nearest(query, 3)
    assert list(hits) == [2, 3, 1]
    assert list(hits.values()) == pytest.approx([math.cos(0.1), math.cos(0.4), math.cos(0.6)], abs=1e-6)


def test_lexical_scores_are_bm25_with_idf(collection: Collection) -> None:
    def idf(df: int) -> float:
        return math.log(1 + (4 - df + 0.5) / (df + 0.5))

    hits = collection.lexical(vector({1: 1, 5: 1, 7: 1, 2**32 - 1: 1}), 10)
    assert hits == pytest.approx({0: idf(1) + 2 * idf(3), 3: idf(3), 1: 0.5 * idf(3)}, rel=1e-6)
    assert list(hits) == [0, 3, 1]


def test_a_query_without_known_terms_finds_nothing(collection: Collection) -> None:
    assert collection.lexical(vector({2: 1, 100: 1}), 5) == {} == collection.lexical(vector({}), 5)
