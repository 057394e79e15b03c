"""Sparse vectors as Chroma's functions."""

import json

import numpy as np
import pytest

from tercet import ModelMismatchError
from tercet_chroma import TercetSparseEmbeddingFunction

TEXTS = ["hello world", "hello hello fox", ""]


def test_both_sides_are_chromas_vectors(engine):
    function = TercetSparseEmbeddingFunction("bm25", engine)
    rows = engine.encode("bm25", TEXTS, output_types=["sparse"]).sparse
    for ours, row in zip(function(TEXTS), rows, strict=True):
        assert ours.indices == row.indices.tolist() and ours.indices == sorted(set(ours.indices))
        np.testing.assert_array_equal(np.float32(ours.values), row.values)
    assert function.embed_query(["hello fox"])[0].values == [1.0, 1.0]


def test_a_configuration_makes_the_same_function(engine, m3):
    function = TercetSparseEmbeddingFunction(m3, engine, top_k=3, query_prompt="q: ", document_prompt="d: ")
    config = json.loads(json.dumps(function.get_config()))
    rebuilt = TercetSparseEmbeddingFunction.build_from_config(config)
    assert rebuilt.get_config() == config and rebuilt.name() == "tercet-sparse"
    assert rebuilt(TEXTS[:2]) == function(TEXTS[:2]) and max(len(row.indices) for row in rebuilt(TEXTS[:2])) <= 3
    TercetSparseEmbeddingFunction.validate_config(config)


def test_another_model_is_refused(engine, m3):
    function = TercetSparseEmbeddingFunction("bm25", engine)
    config = function.get_config()
    with pytest.raises(ModelMismatchError):
        TercetSparseEmbeddingFunction.build_from_config({**config, "model": "bm25:german"})(["hello"])
    function.validate_config_update(config, {**config, "device": "cpu"})
    with pytest.raises(ModelMismatchError):
        function.validate_config_update(config, TercetSparseEmbeddingFunction(m3, engine).get_config())
