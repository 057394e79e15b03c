"""Requests: small ones as JSON, large ones as Arrow, both holding the same."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InvalidInputError
from tercet.inputs import encode_params, score_params
from tercet.types import Item
from tercet.wire import ARROW, JSON
from tercet.wire.requests import checked_item, encode_document, read_request, request_body, score_document
from tercet.wire.stream import write_stream

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.lists(st.integers(0, 2**31), min_size=1, max_size=4)
ITEMS = st.builds(Item, TEXTS, st.none() | TEXTS) | st.builds(Item, st.none(), st.none() | TEXTS, IDS)


def plain(item):
    return Item(text=item) if isinstance(item, str) else item


@pytest.mark.slow
@given(st.lists(ITEMS, min_size=65, max_size=70))
def test_many_items_go_as_arrow_and_come_back(items):
    kind, body = request_body(items, {"params": {"is_query": True, "prompt": "é"}})
    given, rest = read_request(body)
    assert kind == ARROW
    assert [plain(item) for item in given] == items and rest == {"params": {"is_query": True, "prompt": "é"}}


@given(st.lists(ITEMS, min_size=1, max_size=5))
def test_few_items_go_as_json(items):
    kind, body = request_body(items, {"params": {}})
    document = json.loads(body)
    assert kind == JSON
    given = [plain(item) if isinstance(item, str) else Item(**item) for item in document["items"]]
    assert given == items


def test_few_long_items_go_as_arrow_too():
    kind, body = request_body([Item(text="x" * 100_000)], {})
    assert (kind, read_request(body)) == (ARROW, (["x" * 100_000], {}))


def test_parameters_as_by_default_are_left_out():
    assert encode_document(encode_params()) == {"params": {}}
    given = encode_params(["sparse", "dense", "sparse"], True, 8, "int8", "", "none", {"pool_factor": 2})
    assert json.loads(json.dumps(encode_document(given))) == {
        "params": {
            "output_types": ["sparse", "dense"],
            "is_query": True,
            "dimensions": 8,
            "output_dtype": "int8",
            "prompt": "",
            "truncate": "none",
            "options": {"pool_factor": 2},
        }
    }


def test_a_score_request_keeps_its_query_whole_and_its_top_k_at_home():
    params = score_params(3, {"scoring": "maxsim"})
    assert score_document(params, Item("q", "x")) == {
        "query": {"id": "x", "text": "q"},
        "options": {"scoring": "maxsim"},
    }


def test_numpy_ids_are_sent_as_integers():
    item = checked_item(Item(input_ids=np.array([1, 2], np.int32)), 0)
    assert json.loads(request_body([item], {})[1])["items"] == [{"input_ids": [1, 2]}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "item 4 is a int"),
        (Item(), "needs either"),
        ("\udc80", r"item 4 has a lone surrogate U\+DC80 at position 0"),
        (Item(input_ids=[1.5]), "item 4: input_ids must be a non-empty sequence of integers"),
        (Item(input_ids=[[1], [2, 3]]), "item 4: input_ids must be"),
        (Item(input_ids="12"), "item 4: input_ids must be"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_index(value, message):
    with pytest.raises(InvalidInputError, match=message):
        checked_item(value, 4)


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({"id": ["a"]}, {}, "neither a column 'text' nor a column 'input_ids'"),
        ({"text": ["a"], "image": [b"x"]}, {}, "unknown Arrow column 'image'; known: text, id, input_ids"),
        ({"text": [b"a"]}, {}, "Arrow column 'text' is binary"),
        ({"text": ["a"], "id": [3]}, {}, "Arrow column 'id' is int64"),
        ({"input_ids": [["a"]]}, {}, "Arrow column 'input_ids' is list"),
        ({"input_ids": [3]}, {}, "Arrow column 'input_ids' is int64"),
        ({"text": ["a"]}, {"request": "{"}, "metadata 'request' is not JSON"),
        ({"text": ["a"]}, {"request": "[" * 100_000}, "metadata 'request' is not JSON"),
        ({"text": ["a"]}, {"request": "[]"}, "metadata 'request' is not a JSON object"),
    ],
)
def test_malformed_arrow_requests_say_what_is_wrong(columns, metadata, message):
    batch = pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()}, metadata=metadata)
    with pytest.raises(InvalidInputError, match=message):
        read_request(write_stream(batch))


def test_a_column_given_twice_is_refused():
    batch = pa.RecordBatch.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(InvalidInputError, match="two columns of the same name"):
        read_request(write_stream(batch))


def test_text_that_is_no_utf8_is_refused():
    raw = pa.array([b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    with pytest.raises(InvalidInputError, match="UTF8"):
        read_request(write_stream(pa.record_batch({"text": raw})))
