"""Published figures of real checkpoints: run where the hub can be reached, `pytest -m network`.

The MaxSim and SPLADE figures are those of the sentence-transformers suite, the BGE-M3 ones of its model card.
"""

import numpy as np
import pytest

from tercet import Engine

pytestmark = [pytest.mark.network, pytest.mark.timeout(1800)]

QUERY = "Which planet is known as the Red Planet?"
PLANETS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
MAXSIM = {
    "colbert-ir/colbertv2.0": [12.79703, 27.19449, 23.8495, 24.56564],
    "answerdotai/answerai-colbert-small-v1": [30.56916, 31.48954, 31.30291, 31.30716],
    "lightonai/GTE-ModernColBERT-v1": [11.25772, 11.51133, 11.34575, 11.4518],
}
SPLADE_V3 = [12.21746, 26.23663, 22.12236, 23.50005]

M3_QUERIES = ["What is BGE M3?", "Defination of BM25"]
M3_PASSAGES = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms appearing in each"
    " document",
]


@pytest.fixture(scope="module")
def engine():
    with Engine(precision="float32", allow_download=True) as engine:
        yield engine


@pytest.mark.parametrize("model", MAXSIM)
def test_maxsim(engine, model):
    scores = engine.score(model, QUERY, PLANETS, options={"scoring": "maxsim"}).scores
    np.testing.assert_allclose(scores, MAXSIM[model], rtol=1e-4)


def test_splade(engine):
    scores = engine.score("naver/splade-v3", QUERY, PLANETS, options={"scoring": "sparse"}).scores
    np.testing.assert_allclose(scores, SPLADE_V3, rtol=1e-4)


def test_bge_m3(engine):
    """Its three outputs; the card's figures were computed in float16."""
    model, outputs = "BAAI/bge-m3", ["dense", "sparse", "multivector"]
    queries = engine.encode(model, M3_QUERIES, output_types=outputs, is_query=True)
    passages = engine.encode(model, M3_PASSAGES, output_types=outputs)
    np.testing.assert_allclose(queries.dense @ passages.dense.T, [[0.6259, 0.3474], [0.3309, 0.6734]], atol=2e-3)
    # The card's second lexical figure is of its two queries, its second late-interaction figure of query and passage.
    pairs = {"sparse": ([M3_PASSAGES[0], M3_QUERIES[1]], (0.19554901, 0.0)), "maxsim": (M3_PASSAGES, (0.7797, 0.4620))}
    for scoring, (others, figures) in pairs.items():
        scores = engine.score(model, M3_QUERIES[0], others, options={"scoring": scoring}).scores
        np.testing.assert_allclose(scores, figures, atol=2e-3)
