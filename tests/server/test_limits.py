"""Limits: the size of a body, declared or streamed, and when to come back."""

import pytest
from starlette.datastructures import Headers

from support.servers import in_process
from tercet.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelNotFoundError,
    OverloadedError,
    RequestTooLargeError,
    TransportError,
)
from tercet_server.limits import read_body, retry_after
from tercet_server.settings import Settings

pytestmark = pytest.mark.anyio


def receiver(*chunks, complete=True):
    """Return a `receive` that gives the chunks, and how many were asked for."""
    asked = []

    async def receive():
        asked.append(1)
        if len(asked) > len(chunks):
            return {"type": "http.disconnect"}
        more = len(asked) < len(chunks) or not complete
        return {"type": "http.request", "body": chunks[len(asked) - 1], "more_body": more}

    return receive, asked


async def test_a_body_within_the_limit_is_read_whole():
    receive, _ = receiver(b"ab", b"", b"cd")
    assert await read_body(receive, Headers({"content-length": "4"}), 4) == b"abcd"


async def test_a_body_declared_too_large_is_not_read_at_all():
    receive, asked = receiver(b"abcde")
    with pytest.raises(RequestTooLargeError, match="larger than 4 bytes"):
        await read_body(receive, Headers({"content-length": "5"}), 4)
    assert not asked


async def test_a_streamed_body_is_read_no_further_than_the_limit():
    receive, asked = receiver(*[b"ab"] * 100)
    with pytest.raises(RequestTooLargeError):
        await read_body(receive, Headers({"transfer-encoding": "chunked"}), 5)
    assert len(asked) == 3


async def test_half_a_body_is_no_request():
    receive, _ = receiver(b"ab", complete=False)
    with pytest.raises(TransportError):
        await read_body(receive, Headers(), 5)


async def test_compressed_bodies_are_refused():
    receive, asked = receiver(b"ab")
    with pytest.raises(InvalidInputError, match="gzip"):
        await read_body(receive, Headers({"content-encoding": "gzip"}), 5)
    assert not asked


async def test_too_much_is_a_413_that_ends_the_connection(engine, tiny):
    async with in_process(engine, Settings(aliases={"tiny": tiny}, max_body_bytes="1KB")) as client:
        answer = await client.post("/v1/encode/tiny", json={"items": ["a" * 2000]})
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"
        assert answer.headers["connection"] == "close"

        async def stream():
            for _ in range(10):
                yield b" " * 200

        assert (await client.post("/v1/encode/tiny", content=stream())).status_code == 413
        assert (await client.post("/v1/encode/tiny", json={"items": ["a" * 500]})).status_code == 200


def test_refusals_say_when_to_come_back():
    assert retry_after(OverloadedError("full", retry_after_s=1.2)) == {"retry-after": "2"}
    assert retry_after(OverloadedError("full", retry_after_s=0.1)) == {"retry-after": "1"}
    assert retry_after(OverloadedError("full")) == {"retry-after": "1"}
    assert retry_after(DeadlineExceededError("late")) == retry_after(ModelNotFoundError("none")) == {}
