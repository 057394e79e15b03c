"""Results through JSON: the same bits come back, and nothing malformed does."""

import json
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.results import assert_same, drawn_embeddings, embeddings, model_info, scores
from tercet.errors import InvalidInputError
from tercet.types import Timings
from tercet.wire.models import model_document, read_model
from tercet.wire.results import embeddings_document, read_embeddings, read_scores, scores_document


def through_json(document: Any) -> Any:
    return json.loads(json.dumps(document, default=lambda array: array.tolist()))


@given(drawn_embeddings())
def test_embeddings_survive_json_to_the_last_bit(result):
    assert_same(read_embeddings(through_json(embeddings_document(result))), result)
    assert_same(read_embeddings(embeddings_document(result)), result)


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_scores_survive_json_to_the_last_bit(seed, size):
    result = scores(seed, size, timings=Timings(1, 2, 3, 4.5))
    assert_same(read_scores(through_json(scores_document(result))), result)


def test_the_document_is_the_published_one():
    result = embeddings(1, frozenset(["dense", "sparse", "multivector"]), "float32", ["a"], Timings(1, 2, 3, 6))
    document = embeddings_document(result)
    (item,) = document["items"]
    assert list(document) == ["model", "revision", "items", "usage", "timing"]
    assert document["usage"] == {"tokens": result.tokens[0]}
    assert document["timing"] == {"queue_ms": 1, "tokenization_ms": 2, "inference_ms": 3, "total_ms": 6}
    assert list(item) == ["id", "dense", "sparse", "multivector", "tokens", "truncated"]
    assert (item["dense"]["dims"], item["dense"]["dtype"]) == (16, "float32")
    assert np.shares_memory(item["dense"]["values"], result.dense)
    assert item["sparse"]["dims"] == 2**32 and list(item["sparse"]) == ["dims", "dtype", "indices", "values"]
    assert item["multivector"]["num_tokens"] == len(result.multivector[0])
    assert item["multivector"]["token_dims"] == 16


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_packed_bits_say_how_many_dimensions_they_hold(dtype):
    (item,) = embeddings_document(embeddings(0, frozenset(["dense"]), dtype, [None]))["items"]
    assert (item["dense"]["dims"], item["dense"]["dtype"], len(item["dense"]["values"])) == (16, dtype, 2)


def test_top_k_leaves_rows_out_and_they_are_not_read_as_all():
    document = scores_document(scores(3, 6, top_k=2))
    assert [row["rank"] for row in document["scores"]] == [0, 1]
    assert document["usage"]["tokens"] == scores(3, 6).tokens.sum()
    if {row["index"] for row in document["scores"]} != {0, 1}:
        with pytest.raises(InvalidInputError, match="not every index once"):
            read_scores(document)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@given(st.data())
def test_a_document_with_a_wrong_part_is_refused(data):
    result = embeddings(7, frozenset(["dense", "sparse", "multivector"]), "int8", ["a", "b"])
    document = through_json(embeddings_document(result))
    free = [("sparse", "dtype"), ("id",), ("truncated",)]  # a text is an id, and anything is true or false
    wanted = [p for p in places(document["items"], ("items",)) if len(p) > 1 and p[2:] not in free]
    place = data.draw(st.sampled_from(wanted))
    *path, last = place
    inner = broken = deepcopy(document)
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(st.sampled_from([None, "x", {"y": 1}, [[1, 2], [3]]]))
    with pytest.raises(InvalidInputError, match="not a document of embeddings"):
        read_embeddings(broken)


@pytest.mark.parametrize("document", [None, 3, "x", [], {}, {"items": []}, {"items": [3]}, {"model": "m", "items": 1}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(InvalidInputError):
        read_embeddings(document)
    with pytest.raises(InvalidInputError):
        read_scores(document)
    with pytest.raises(InvalidInputError):
        read_model(document)


@pytest.mark.parametrize("state", ["available", "loading", "resident", "parked", "failed"])
def test_a_models_description_survives(state):
    info = model_info(state=state, error="no memory" if state == "failed" else None)
    document = through_json(model_document(info))
    assert read_model(document) == info
    assert document["loaded"] is (state == "resident") and document["state"] == state.replace("resident", "loaded")
    assert (document["name"], document["object"], document["owned_by"]) == ("org/name", "model", "org")
    assert (document["last_error"] or {}).get("message") == info.error


def test_descriptions_by_a_newer_server_are_read_too():
    assert read_model({**through_json(model_document(model_info())), "colour": "blue"}) == model_info()
    with pytest.raises(InvalidInputError, match="architecture"):
        read_model({key: value for key, value in model_document(model_info()).items() if key != "architecture"})
