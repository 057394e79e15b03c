"""Calls of `encode` that must be refused, and how: the same in process and over HTTP."""

from __future__ import annotations

from typing import Any

from tercet.errors import InvalidInputError, TercetError, UnsupportedOperationError
from tercet.types import Item

BAD: dict[str, tuple[dict[str, Any], type[TercetError], str]] = {
    "an empty list": ({"items": []}, InvalidInputError, "items is empty"),
    "a number": ({"items": 7}, InvalidInputError, "not int"),
    "bytes": ({"items": b"text"}, InvalidInputError, "not bytes"),
    "a mapping": ({"items": {"text": "x"}}, InvalidInputError, "not dict"),
    "None among texts": ({"items": ["a", None]}, InvalidInputError, "item 1 is a NoneType"),
    "an item without text": ({"items": [Item(id="x")]}, InvalidInputError, "item 0 needs either text or input_ids"),
    "a lone surrogate": ({"items": ["fine", "bad \ud800"]}, InvalidInputError, "item 1"),
    "ids outside the vocabulary": ({"items": [Item(input_ids=[1, 10**6])]}, InvalidInputError, "item 0"),
    "negative ids": ({"items": [Item(input_ids=[-1])]}, InvalidInputError, "item 0"),
    "no ids": ({"items": [Item(input_ids=[])]}, InvalidInputError, "item 0"),
    "an unknown output": ({"output_types": ["tense"]}, InvalidInputError, "'tense' is not one of dense, sparse"),
    "no outputs": ({"output_types": []}, InvalidInputError, "output_types is empty"),
    "an output it lacks": ({"output_types": ["sparse"]}, UnsupportedOperationError, "it has: dense, multivector"),
    "too many dimensions": ({"dimensions": 33}, InvalidInputError, "ask for 1 to 32"),
    "zero dimensions": ({"dimensions": 0}, InvalidInputError, "whole number from 1"),
    "a fractional dimension": ({"dimensions": 8.0}, InvalidInputError, "whole number from 1"),
    "bits of an odd width": ({"dimensions": 9, "output_dtype": "binary"}, InvalidInputError, "no multiple of 8"),
    "an unknown type": ({"output_dtype": "int4"}, InvalidInputError, "'int4' is not one of float32"),
    "an unknown truncation": ({"truncate": "middle"}, InvalidInputError, "'middle' is not one of end, start, none"),
    "an unknown option": ({"options": {"temperature": 1}}, InvalidInputError, "unknown option 'temperature'"),
    "options of a wrong type": ({"options": 3}, InvalidInputError, "options must be a mapping"),
    "is_query of a wrong type": ({"is_query": "yes"}, InvalidInputError, "is_query must be True or False"),
    "a prompt of a wrong type": ({"prompt": 3}, InvalidInputError, "prompt must be a string"),
    "no time at all": ({"timeout_s": 0}, InvalidInputError, "timeout_s must be a number of seconds above 0"),
    "a text that may not be cut": ({"items": ["ok", "x " * 500], "truncate": "none"}, InvalidInputError, "item 1"),
}


def encode_badly(inference: Any, model: str, case: str) -> None:
    """Make one of the calls."""
    keywords = {"items": "x", "timeout_s": 30, **BAD[case][0]}
    inference.encode(model, keywords.pop("items"), **keywords)
