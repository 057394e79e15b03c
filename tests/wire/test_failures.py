"""Errors come back as what they were; strangers' answers come back as what they say."""

import json

import pytest

from tercet import errors
from tercet.errors import AuthenticationError, ForbiddenError, OverloadedError, TercetError, TransportError
from tercet.wire.failures import error_document, read_error

KINDS = [TercetError, *TercetError.__subclasses__()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retry_after_s", [None, 0.0, 1.25])
def test_every_class_survives(kind, retry_after_s):
    body = json.dumps(error_document(kind("what, what is allowed, what to do", retry_after_s=retry_after_s))).encode()
    error = read_error(kind.status, {}, body)
    assert type(error) is kind and error.message == "what, what is allowed, what to do"
    assert error.retry_after_s == retry_after_s


def test_every_class_of_the_tree_is_known_here():
    tree = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TercetError)}
    assert tree == set(KINDS)


@pytest.mark.parametrize(("header", "seconds"), [("3", 3), ("0.5", 0.5), ("-1", None), ("inf", None), ("soon", None)])
def test_retry_after_fills_in_for_the_body(header, seconds):
    body = b'{"error": {"code": "overloaded", "message": "full"}}'
    assert read_error(429, {"retry-after": header}, body).retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (403, ForbiddenError),
        (429, OverloadedError),
        (404, TransportError),
        (502, TransportError),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"<html>\nBad  gateway", b"[1]", b'{"error": "x"}', b'{"error": {"code": "made_up", "message": "m"}}']
)
def test_a_strangers_answer_is_quoted(status, kind, body):
    error = read_error(status, {"retry-after": "2"}, body)
    assert type(error) is kind and error.retry_after_s == 2
    assert error.message.startswith(f"the server answered {status}: ") and len(error.message) < 300
    if b"html" in body:
        assert error.message.endswith("<html> Bad gateway")


def test_accepted_is_not_ready():
    error = read_error(202, {"retry-after": "5"}, b"")
    assert isinstance(error, OverloadedError) and error.retry_after_s == 5
