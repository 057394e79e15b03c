"""`Endpoint`: a route as data, and the values that go through it: the `Call` that a handler gets, its `Answer`.

A dialect is a table of endpoints and a way to write errors. Decoding, limits, authentication, deadlines, headers and
error rendering happen once, in `gateway.py`; `/openapi.json` is read off the same table.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec
from starlette.datastructures import QueryParams

from tercet.deadline import Deadline
from tercet.errors import DeadlineExceededError, InvalidInputError, TercetError
from tercet.types import Timings
from tercet_server.json_body import decode_json, in_pieces, to_json

if TYPE_CHECKING:
    from tercet_server.service import Service

B = TypeVar("B")

Headers = Mapping[str, str]  # by name, in lower case

Scope = Literal["public", "read", "admin"]
JSON = "application/json"
_FEW_ITEMS, _FEW_TOKENS = 32, 256  # of an answer that is written in 1 ms or 2, be it 384 numbers an item or 128 a token


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back when status 200 and JSON are not enough.

    Attributes:
        body: bytes, sent as they are, anything that `to_json` takes, or a function that returns either.
        media_type: of the bytes.
    """

    body: Any
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self, large: bool = False) -> bytes:
        """Return the bytes to send, a large body's made a little at a time (`in_pieces`)."""
        body = self.body() if callable(self.body) else self.body
        if isinstance(body, bytes):
            return body
        return b"".join(in_pieces(body)) if large else to_json(body)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A family of clients and how errors look to them.

    Attributes:
        name: also the tag in `/openapi.json`.
        error: from any error to the status and the JSON body of the answer.
        error_type: the type of that body, for `/openapi.json`.
        summary: who speaks it, for the description.
        variants: how errors look to those of its clients that send another media type than JSON.
    """

    name: str
    error: Callable[[TercetError], tuple[int, Any]]
    error_type: Any
    summary: str = ""
    variants: Mapping[str, Dialect] = field(default_factory=dict)

    def spoken(self, headers: Headers) -> Dialect:
        """Return the dialect of a caller, by the media type that it sends."""
        return self.variants.get(media_type(headers), self)


@dataclass(slots=True)
class Use:
    """One call of the engine for a request.

    Attributes:
        operation: "encode" or "score".
        began_at, answered_at: seconds, by the monotonic clock; it has no answer as long as the second is None.
    """

    operation: str
    model: str
    items: int
    began_at: float = field(default_factory=time.monotonic)
    answered_at: float | None = None
    tokens: int = 0
    timings: Timings | None = None

    def answered(self, timings: Timings | None, tokens: int) -> None:
        """Record that the engine has answered."""
        self.answered_at, self.timings, self.tokens = time.monotonic(), timings, tokens


@dataclass(slots=True)
class Call(Generic[B]):
    """One request on its way through a handler.

    Attributes:
        model: from the path (`/m/{model}/…` or `{model}`), which goes before any model that the body names.
        body: decoded and checked against the endpoint's body type; None if it has none.
        uses: the engine's calls so far, those without an answer too.
    """

    endpoint: Endpoint
    request_id: str
    headers: Headers
    query: QueryParams
    model: str | None
    body: B
    deadline: Deadline
    uses: list[Use] = field(default_factory=list)

    def left_s(self) -> float | None:
        """Return the seconds left until the caller's deadline, None for any number.

        Raises:
            DeadlineExceededError: there are none.
        """
        left = self.deadline.left_s()
        if left is not None and left <= 0:
            raise self.deadline.error("before the model was asked")
        return left

    @property
    def waits(self) -> bool:
        """Whether the caller waits for a model that is not loaded yet; no: `?wait=false`, `X-Wait-For-Model: false`."""
        said = self.query.get("wait") or self.headers.get("x-wait-for-model") or "true"
        return said.strip().lower() not in ("false", "0", "no")

    def use(self, operation: str, model: str, items: int) -> Use:
        """Return the record of an engine call that begins."""
        use = Use(operation, model, items)
        self.uses.append(use)
        return use

    @property
    def tokens(self) -> int:
        """Read by all the engine's calls."""
        return sum(use.tokens for use in self.uses)

    @property
    def is_large(self) -> bool:
        """Whether its answer takes longer to write than an event loop can well be held up."""
        return sum(use.items for use in self.uses) > _FEW_ITEMS or self.tokens > _FEW_TOKENS

    @property
    def timings(self) -> Timings | None:
        """Of the slowest engine call so far."""
        return max((use.timings for use in self.uses if use.timings), key=lambda each: each.total_ms, default=None)


Handler = Callable[["Service", Call[Any]], Awaitable[Any]]
Decode = Callable[[bytes, Headers], Any]


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Attributes:
        path: literal segments and at most one `{model}`, which takes any number of segments.
        handler: returns an `Answer`, or the body of a 200.
        body: the type that the request's body must fit, a `msgspec.Struct` or what msgspec knows; None for no body.
        answers: by status, the type of the body; errors are added from the dialect.
        modeled: whether it also answers under `/m/{model}/…`.
        scope: what an API key must allow; "public" needs none.
        decode: for bodies that are not only JSON; it raises InvalidInputError.
        body_media_types, answer_media_types: for `/openapi.json`, the first one is the default.
        key_of: reads an API key from the decoded body, for callers that can send none in a header.
        query: the query parameters that it reads, each with its meaning.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    dialect: Dialect
    summary: str
    body: Any = None
    answers: Mapping[int, Any] = field(default_factory=dict)
    modeled: bool = True
    scope: Scope = "read"
    decode: Decode | None = None
    body_media_types: tuple[str, ...] = (JSON,)
    answer_media_types: tuple[str, ...] = (JSON,)
    key_of: Callable[[Any], str | None] | None = None
    query: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self.body)

    def decoded(self, raw: bytes, headers: Headers) -> Any:
        """Return the request's body as `body` says.

        Raises:
            InvalidInputError: not JSON, or not of that shape; the message says where.
        """
        if self.decode is not None:
            return self.decode(raw, headers)
        return decode_json(raw, self._decoder)

    def under(self, prefix: str) -> Endpoint:
        """Return the same endpoint below a prefix."""
        return dataclasses.replace(self, path=prefix + self.path)


def media_type(headers: Headers) -> str:
    """Return the media type of a request's body, without parameters; empty if the caller does not say."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_LONGEST_TIMEOUT_S = 3600.0


def request_timeout_s(headers: Headers, default_s: float | None) -> float | None:
    """Return the seconds that the caller gives the request, `X-Request-Timeout-Ms` or the default.

    Raises:
        InvalidInputError: not a number of milliseconds above 0.
        DeadlineExceededError: 0, a caller's own way to say that its time is over.
    """
    given = headers.get("x-request-timeout-ms")
    if given is None:
        return default_s
    try:
        seconds = float(given) / 1e3
    except ValueError:
        seconds = -1.0
    if seconds == 0:
        raise DeadlineExceededError("X-Request-Timeout-Ms is 0: the caller's time had run out before the call came")
    if not 0 < seconds < float("inf"):
        raise InvalidInputError(f"X-Request-Timeout-Ms must be a number of milliseconds above 0, not {given!r}")
    return min(seconds, _LONGEST_TIMEOUT_S)


def request_id(headers: Headers, fresh: Callable[[], str]) -> str:
    """Return the caller's `X-Request-Id` if it is 1 to 128 visible ASCII characters, else a fresh one."""
    given = headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else fresh()
