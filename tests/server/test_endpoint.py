"""Endpoints as data: bodies in, bodies out, and what a request may say about itself."""

from dataclasses import dataclass

import msgspec
import numpy as np
import orjson
import pytest
from starlette.datastructures import Headers

from tercet.errors import DeadlineExceededError, InvalidInputError, RouteNotFoundError, TercetError
from tercet_server.dialects import native
from tercet_server.endpoint import Answer, Endpoint, request_id, request_timeout_s
from tercet_server.json_body import in_pieces, to_json
from tercet_server.routes import Routes


class Body(msgspec.Struct):
    text: str
    count: int = 1


async def handler(service, call):
    return None


def endpoint(path, method="POST", **more):
    return Endpoint(method, path, handler, native.DIALECT, path, Body, **more)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is not JSON"),
        (b'{"text": "a"} x', "is not JSON"),
        (b'\xef\xbb\xbf{"text": "a"}', "is not JSON"),
        ('{"text": "a"}'.encode("utf-16"), "is not JSON"),
        (b'{"text": "\xff"}', "is not JSON"),
        (b'{"text": "\\ud800"}', "is not JSON"),
        (b'{"count": 1}', "missing required field `text`"),
        (b'{"text": 1}', "Expected `str`, got `int` - at `$.text`"),
        (b'{"text": "a", "count": 1.5}', "Expected `int`"),
        (b"[" * 200_000, "the body"),
        (b'{"text": "a", "other": ' + b"[" * 200_000 + b"}", "nested too deeply"),
        (b"null", "Expected `object`"),
    ],
)
def test_a_wrong_body_is_the_callers_fault(raw, message):
    with pytest.raises(InvalidInputError) as caught:
        endpoint("/x").decoded(raw, Headers())
    assert message in caught.value.message and len(caught.value.message) < 200


def test_a_right_body_comes_in_its_type():
    assert endpoint("/x").decoded(b'{"text": "\xc3\xa4", "other": null}', Headers()) == Body("ä")
    own = endpoint("/x", decode=lambda raw, headers: (raw, headers["kind"]))
    assert own.decoded(b"raw", Headers({"kind": "k"})) == (b"raw", "k")


def test_answers_are_json_of_all_that_handlers_give():
    class Named(msgspec.Struct, rename="camel"):
        first_name: str
        unset: int | msgspec.UnsetType = msgspec.UNSET

    @dataclass
    class Point:
        x: float

    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = {"a": matrix, "b": matrix.T, "c": [Named("n"), Point(0.5)], "d": np.float16([1.5]), "e": np.uint8(7)}
    body |= {"f": {}, "g": [], "h": np.empty((0, 3)), "i": np.empty((2, 0)), "j": None, "k": ("ä", 1e-9)}
    assert orjson.loads(to_json(body)) == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "b": [[0, 3], [1, 4], [2, 5]],
        "c": [{"firstName": "n"}, {"x": 0.5}],
        "d": [1.5],
        "e": 7,
        **{"f": {}, "g": [], "h": [], "i": [[], []], "j": None, "k": ["ä", 1e-9]},
    }
    assert b"".join(in_pieces(body)) == to_json(body) == Answer(lambda: body).content() == Answer(body).content(True)
    assert Answer(b"\x00", media_type="x/y").content() == b"\x00"
    for write in (to_json, lambda given: b"".join(in_pieces([given]))):
        with pytest.raises(TypeError):
            write(object())


def test_no_piece_of_a_large_answer_is_more_than_a_vector():
    texts = {"items": [{"id": None, "dense": {"values": row}} for row in np.ones((100, 384), np.float32)]}
    tokens = {"data": [{"vectors": np.ones((500, 128), np.float32)}]}
    assert max(map(len, in_pieces(texts))) < 384 * 5 and max(map(len, in_pieces(tokens))) < 128 * 5


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 60.0), ("1500", 1.5), ("0.5", 0.0005), ("1e12", 3600.0), (" 20 ", 0.02)]
)
def test_callers_say_how_long_they_wait(given, seconds):
    headers = Headers({} if given is None else {"X-Request-Timeout-Ms": given})
    assert request_timeout_s(headers, 60.0) == seconds


@pytest.mark.parametrize("given", ["", "soon", "-1", "nan", "inf"])
def test_a_wrong_wait_is_refused(given):
    with pytest.raises(InvalidInputError, match="X-Request-Timeout-Ms"):
        request_timeout_s(Headers({"X-Request-Timeout-Ms": given}), 60.0)
    with pytest.raises(DeadlineExceededError):
        request_timeout_s(Headers({"X-Request-Timeout-Ms": "0"}), 60.0)


def test_a_request_id_is_the_callers_if_it_can_stand_in_a_log():
    assert request_id(Headers({"X-Request-Id": "abc-1/2"}), lambda: "fresh") == "abc-1/2"
    for wrong in ("", "a b", "ä", "x" * 129, "a\tb"):
        assert request_id(Headers({"X-Request-Id": wrong}), lambda: "fresh") == "fresh"


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ROUTES = Routes(
    [
        endpoint("/embed"),
        endpoint("/v2/embed"),
        endpoint("/"),
        endpoint("/info", "GET"),
        endpoint("/v1/models/{model}", "GET"),
        endpoint("/v1/models/{model}/load"),
        endpoint("/health", "GET", modeled=False),
    ]
)


@pytest.mark.parametrize(
    ("path", "found", "model"),
    [
        ("/embed", "/embed", None),
        ("//embed/", "/embed", None),
        ("/", "/", None),
        ("/m/org/name/embed", "/embed", "org/name"),
        ("/m/name/embed", "/embed", "name"),
        ("/m/org/name/v2/embed", "/v2/embed", "org/name"),
        ("/m/org/name", "/", "org/name"),
        ("/m/org%2Fv2/embed", "/embed", "org/v2"),
        ("/m/org%2Fname%40main/embed", "/embed", "org/name@main"),
        ("/v1/models/org/name", "/v1/models/{model}", "org/name"),
        ("/v1/models/org/name/load", "/v1/models/{model}/load", "org/name"),
        ("/v1/models/load", "/v1/models/{model}", "load"),
    ],
)
def test_paths_lead_to_endpoints_and_models(path, found, model):
    match = ROUTES.match(path)
    assert (match.any.path, match.model) == (found, model)


@pytest.mark.parametrize("path", ["/nothing", "/m", "/v1/models", "/embed/more", "/v2"])
def test_other_paths_lead_nowhere(path):
    with pytest.raises(RouteNotFoundError, match="nothing answers"):
        ROUTES.match(path)


def test_two_endpoints_for_one_address_are_a_mistake():
    with pytest.raises(ValueError, match="two endpoints answer POST /embed"):
        Routes([endpoint("/embed"), endpoint("/embed")])


def test_methods_are_known_and_head_is_get():
    match = ROUTES.match("/info")
    assert match.endpoint("HEAD") is match.endpoint("GET") and match.allowed == ["GET", "HEAD"]
    with pytest.raises(TercetError, match="use GET, HEAD"):
        match.endpoint("POST")
