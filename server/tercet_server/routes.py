"""`Routes`: which endpoint answers a path.

A model's id has slashes of its own, so `{model}` takes any number of segments: the endpoint with the most literal
segments wins. `%2F` keeps an ambiguous id in one segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tercet.errors import MethodNotAllowedError, RouteNotFoundError
from tercet_server.endpoint import Endpoint

MODEL = "{model}"
Methods = dict[str, Endpoint]


@dataclass(frozen=True, slots=True)
class Match:
    """What a path leads to: endpoints by method, and the model that it names."""

    methods: Mapping[str, Endpoint]
    model: str | None

    def endpoint(self, method: str) -> Endpoint:
        """Return the endpoint for a method; HEAD is answered by GET.

        Raises:
            MethodNotAllowedError: there is none.
        """
        found = self.methods.get("GET" if method == "HEAD" else method)
        if found is None:
            raise MethodNotAllowedError(f"{method} is not answered here; use {', '.join(self.allowed)}")
        return found

    @property
    def allowed(self) -> list[str]:
        """The methods that are answered."""
        return sorted({*self.methods, *(["HEAD"] if "GET" in self.methods else [])})

    @property
    def any(self) -> Endpoint:
        """One of the endpoints, for its dialect."""
        return next(iter(self.methods.values()))


class Routes:
    """The endpoints by path. Those that take a model answer under `/m/{model}/…` too.

    Raises:
        ValueError: two endpoints have the same method and path.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._exact: dict[tuple[str, ...], Methods] = {}
        self._around: dict[tuple[tuple[str, ...], tuple[str, ...]], Methods] = {}
        for endpoint in self.endpoints:
            self._add(endpoint, endpoint.path)
            if endpoint.modeled and MODEL not in endpoint.path:
                self._add(endpoint, f"/m/{MODEL}{endpoint.path}")
        self._by_length = sorted(self._around, key=lambda around: -len(around[0]) - len(around[1]))

    def match(self, path: str) -> Match:
        """Return what answers a raw path (still percent-encoded); empty segments are skipped.

        Raises:
            RouteNotFoundError: nothing does.
        """
        segments = tuple(unquote(segment) for segment in path.split("/") if segment)
        if (methods := self._exact.get(segments)) is not None:
            return Match(methods, None)
        for prefix, suffix in self._by_length:
            last = len(segments) - len(suffix)
            if last > len(prefix) and segments[: len(prefix)] == prefix and segments[last:] == suffix:
                return Match(self._around[prefix, suffix], "/".join(segments[len(prefix) : last]))
        raise RouteNotFoundError(f"nothing answers at {unquote(path)!r}; /openapi.json lists what does")

    def _add(self, endpoint: Endpoint, path: str) -> None:
        segments = tuple(segment for segment in path.split("/") if segment)
        table: dict[Any, Methods] = self._exact
        key: Any = segments
        if MODEL in segments:
            place = segments.index(MODEL)
            table, key = self._around, (segments[:place], segments[place + 1 :])
        methods = table.setdefault(key, {})
        if endpoint.method in methods:
            raise ValueError(f"two endpoints answer {endpoint.method} {path}")
        methods[endpoint.method] = endpoint
