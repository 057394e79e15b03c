"""Scores under another activation than the checkpoint's own."""

import numpy as np
import pytest
from scipy.special import expit, logit

from support.checkpoints import rewrite
from support.tiny_models import save_bert
from tercet import Engine
from tercet.errors import InvalidInputError

QUERY, TEXTS = "a fox", ["hello world", "the quick brown fox", "words, words"]
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity"}


@pytest.fixture(scope="module")
def engine():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


@pytest.fixture(scope="module", params=["sigmoid", "identity"])
def scores(request, tmp_path_factory, engine):
    """What scores the texts, by a model whose own activation is either."""
    folder = tmp_path_factory.mktemp("reranker")
    save_bert(folder, architecture="BertForSequenceClassification", num_labels=1)
    if request.param == "identity":
        rewrite(folder / "config.json", sentence_transformers=IDENTITY)
    own = engine.score(str(folder), QUERY, TEXTS).scores

    def score(**options):
        return engine.score(str(folder), QUERY, TEXTS, options=options).scores

    return request.param, own, score


def test_the_models_own_is_the_default(scores):
    name, own, score = scores
    np.testing.assert_array_equal(score(activation=name), own)


def test_the_other_one_is_its_function_or_inverse(scores):
    name, own, score = scores
    other, function = ("identity", logit) if name == "sigmoid" else ("sigmoid", expit)
    np.testing.assert_allclose(score(activation=other), function(own), atol=1e-5)


def test_unknown_ones_are_refused(scores):
    with pytest.raises(InvalidInputError, match=r"activation.*softmax.*identity, sigmoid"):
        scores[2](activation="softmax")


def test_similarities_have_none(engine, tmp_path):
    save_bert(tmp_path)
    raw, plain = (engine.score(str(tmp_path), QUERY, TEXTS, options=o) for o in ({"activation": "sigmoid"}, {}))
    np.testing.assert_array_equal(raw.scores, plain.scores)
