"""Logs: one line for each request and for each thing that happens, as text or as JSON; never a text or a key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from tercet_server.gateway import Exchange

FORMATS = ("text", "json")

_requests = logging.getLogger("tercet_server.requests")


def configure(level: str, log_format: str) -> None:
    """Send every logger's records, uvicorn's too, to standard error in one of the `FORMATS`."""
    handler = TurnHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # No line says where in the code and on which thread it was logged, so it need not be found out.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class TurnHandler(logging.StreamHandler[Any]):
    """Writes what an event loop logs in one turn all at once, at its end; errors and other threads' lines right away.

    Each write lets another thread have the interpreter's lock, and under load it takes a fifth of a millisecond to come
    back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record's line."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            loop = _running_loop()
            if loop is None or record.levelno >= logging.ERROR:
                self.flush()
            else:
                loop.call_soon(self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write every line so far."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("".join(lines))
                super().flush()
        except (OSError, ValueError):
            pass  # standard error is closed: there is nobody to tell
        finally:
            self.release()


class TextFormatter(logging.Formatter):
    """A line for people: time, level, logger, message, then the fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """A JSON object for machines, on one line: time, level, logger, message, the fields, any traceback as one text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        head = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        body = {**head, "message": record.getMessage(), **_fields(record)}
        if record.exc_info is not None:
            body["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(body, default=str).decode()


def log_exchange(exchange: Exchange) -> None:
    """Log a finished request; those that only look (probes, scrapes, the page) are for level debug."""
    level = _level(exchange)
    if _requests.isEnabledFor(level):
        _requests.log(level, "%s %s", exchange.method, exchange.path, extra={"fields": request_fields(exchange)})


def request_fields(exchange: Exchange) -> dict[str, Any]:
    """Return what is worth knowing of a request, without anything of its body."""
    call = exchange.call
    uses = call.uses if call else []
    fields: dict[str, Any] = {
        "request_id": exchange.request_id,
        "dialect": exchange.endpoint.dialect.name if exchange.endpoint else None,
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "error": exchange.error.code if exchange.error else None,
        "models": sorted({use.model for use in uses}) or None,
        "items": sum(use.items for use in uses) if uses else None,
        "tokens": call.tokens if call and uses else None,
        "sent_bytes": exchange.sent_bytes,
        **_phases(exchange),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _phases(exchange: Exchange) -> dict[str, float]:
    timings = exchange.call.timings if exchange.call else None
    phases = {"serialize_ms": exchange.serialize_ms, "total_ms": exchange.total_ms}
    if timings is not None:
        engine = {
            "queue_ms": timings.queue_ms,
            "tokenize_ms": timings.tokenization_ms,
            "inference_ms": timings.inference_ms,
        }
        phases = {**engine, **phases}
    return {name: round(ms, 3) for name, ms in phases.items() if ms is not None}


def _level(exchange: Exchange) -> int:
    if exchange.status == 500:
        return logging.ERROR
    if exchange.status >= 400:
        return logging.WARNING
    looks = exchange.method in ("GET", "HEAD", "OPTIONS")
    return logging.DEBUG if looks else logging.INFO


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: Any) -> str:
    """Return the value on one line, in quotes where it could be read as more than one."""
    if isinstance(value, int | float):
        return str(value)
    text = ",".join(value) if isinstance(value, list) else str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else orjson.dumps(text).decode()
