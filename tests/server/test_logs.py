"""Logs: one line a request, in two formats, without a word of what was sent."""

import io
import json
import logging
import re
import weakref
from datetime import datetime

import anyio
import httpx
import pytest

from support.servers import in_process, live_server
from tercet_server.logs import JsonFormatter, TextFormatter, TurnHandler, configure, log_exchange

pytestmark = pytest.mark.anyio
SECRET = "words that nobody else may read"


@pytest.fixture
def logged():
    """Return the lines, formatted as each format does, of what the server's loggers say at level debug."""
    logger, streams = logging.getLogger("tercet_server"), {}
    level, handlers = logger.level, []
    for name, formatter in (("json", JsonFormatter()), ("text", TextFormatter())):
        streams[name] = io.StringIO()
        handlers.append(logging.StreamHandler(streams[name]))
        handlers[-1].setFormatter(formatter)
        logger.addHandler(handlers[-1])
    logger.setLevel(logging.DEBUG)
    yield lambda name: streams[name].getvalue().splitlines()
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


async def test_a_request_is_one_json_object(engine, settings, tiny, logged):
    async with in_process(engine, settings, observers=[log_exchange]) as client:
        answer = await client.post(
            "/v1/encode/tiny?x=secret-query",
            json={"items": [SECRET, SECRET]},
            headers={"X-Request-Id": "mine", "Authorization": "Bearer secret-key-1"},
        )
    (line,) = logged("json")
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).tzinfo is not None
    phases = [entry.pop(f"{name}_ms") for name in ("queue", "tokenize", "inference", "serialize", "total")]
    assert min(phases) >= 0 and phases[-1] == max(phases)
    assert entry == {
        "level": "info",
        "logger": "tercet_server.requests",
        "message": "POST /v1/encode/tiny",
        "request_id": "mine",
        "dialect": "native",
        "method": "POST",
        "path": "/v1/encode/tiny",
        "status": 200,
        "models": [tiny],
        "items": 2,
        "tokens": int(engine.encode(tiny, [SECRET, SECRET]).tokens.sum()),
        "sent_bytes": len(answer.content),
    }
    assert not re.search("nobody|secret", "".join(logged("json") + logged("text")))


async def test_a_request_is_one_line_of_text(engine, settings, tiny, logged):
    async with in_process(engine, settings, observers=[log_exchange]) as client:
        await client.post("/v1/encode/tiny", json={"items": ["a"]}, headers={"X-Request-Id": "mine"})
    (line,) = logged("text")
    assert re.match(r"\S+Z INFO tercet_server\.requests: POST /v1/encode/tiny request_id=mine ", line)
    assert f" models={tiny} items=1 " in line and " status=200 " in line and re.search(r" total_ms=[\d.]+$", line)


@pytest.mark.parametrize(
    ("method", "path", "level", "error"),
    [
        ("GET", "/healthz", "debug", None),
        ("GET", "/nothing%20here", "warning", "route_not_found"),
        ("POST", "/v1/encode/tiny", "warning", "invalid_input"),
    ],
)
async def test_levels_tell_what_matters(engine, settings, logged, method, path, level, error):
    async with in_process(engine, settings, observers=[log_exchange]) as client:
        await client.request(method, path)
    entry = json.loads(logged("json")[-1])
    assert (entry["level"], entry.get("error"), entry["path"]) == (level, error, path)
    assert "queue_ms" not in entry and "models" not in entry


async def test_a_failure_of_ours_has_its_traceback_and_id(engine, settings, logged):
    async with in_process(engine, settings, observers=[log_exchange]) as client:
        client._transport.app.state.service.keys = None  # as broken as a server can be
        answer = await client.post("/v1/encode/tiny", json={"items": ["a"]})
    failure, request = map(json.loads, logged("json"))
    assert failure["level"] == request["level"] == "error" and request["status"] == 500
    assert failure["request_id"] == request["request_id"] == answer.headers["x-request-id"]
    assert "NoneType" in failure["traceback"]
    assert any(line.startswith("Traceback") for line in logged("text"))


def test_values_stay_on_their_line():
    fields = {"a": "two words", "b": 'a"b', "c": "x\ny", "d": 1.5, "e": ["m", "n"], "f": "\x1b[31m"}
    record = logging.makeLogRecord({"name": "x", "msg": "said", "levelname": "INFO", "fields": fields})
    line = TextFormatter().format(record)
    assert line.endswith(r'''said a="two words" b="a\"b" c="x\ny" d=1.5 e=m,n f="\u001b[31m"''')


def test_configure_leaves_one_handler(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(root, "level", root.level)
    for log_format, formatter in (("json", JsonFormatter), ("text", TextFormatter)):
        configure("warning", log_format)
        assert [type(handler.formatter) for handler in root.handlers] == [formatter] and root.level == logging.WARNING


class Writes(list[str]):
    """A stream that keeps what each write gave it."""

    def write(self, text: str) -> None:
        self.append(text)

    def flush(self) -> None:
        """Nothing waits."""


@pytest.fixture
def own():
    """Return a logger with a handler of its own, and what the handler has written."""
    logger, handler = logging.Logger("own"), TurnHandler()
    logger.addHandler(handler)
    handler.setStream(writes := Writes())
    return logger, writes


async def test_lines_of_a_turn_are_written_together_and_in_order(own):
    logger, writes = own
    logger.info("one")
    logger.info("two")
    assert writes == []
    await anyio.lowlevel.checkpoint()
    assert writes == ["one\ntwo\n"]
    logger.info("three")
    await anyio.to_thread.run_sync(logger.info, "four")  # by then the turn may have ended
    logger.info("five")
    logger.error("six")
    assert "".join(writes) == "one\ntwo\nthree\nfour\nfive\nsix\n"


def test_lines_outside_an_event_loop_are_written_at_once(own):
    logger, writes = own
    logger.info("one")
    assert writes == ["one\n"]


async def test_a_process_that_ends_amid_a_turn_writes_its_lines(own):
    logger, writes = own
    logger.info("one")
    logging.shutdown([weakref.ref(*logger.handlers)])
    assert writes == ["one\n"]


async def test_a_closed_stream_stops_nobody(own):
    logger, _ = own
    logger.handlers[0].setStream(stream := io.StringIO())
    stream.close()
    logger.info("one")
    logger.error("two")
    await anyio.lowlevel.checkpoint()


@pytest.mark.slow
def test_a_server_logs_nothing_but_json(tiny):
    flags = {"models": (tiny,), "aliases": (f"tiny={tiny}",), "log_format": "json", "log_level": "debug"}
    with live_server(flags) as server:
        httpx.post(f"{server.url}/v1/encode/tiny", json={"items": [SECRET]}, headers={"X-Request-Id": "mine"})
        httpx.get(f"{server.url}/nothing")
        httpx.request("BREW", f"{server.url}/healthz")
    entries = [json.loads(line) for line in server.log]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(entry) for entry in entries))
    (request,) = [entry for entry in entries if entry.get("request_id") == "mine"]
    assert request["status"] == 200 and request["inference_ms"] > 0
    assert SECRET not in "".join(server.log)
