"""`Patience`: calls to a Chroma server that may be away for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import httpx

from tercet.errors import TransportError

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 4.0
_AWAY = (502, 503, 504)  # what stands before a server says while that is away


class Patience:
    """Repeats a call until the server answers; for calls that may be repeated, as all of Chroma's are that name ids.

    Chroma embedded never fails in this way. What a server answers, errors included, goes through as it is.

    Args:
        limit_s: how long after the first failure a call is still begun.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def __call__(self, call: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
        """Return what the call returns.

        Raises:
            TransportError: the server did not answer for so long.
        """
        wait_s, gives_up = _FIRST_WAIT_S, None
        while True:
            try:
                return call(*args, **keywords)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in _AWAY:
                    raise
                gives_up = gives_up or time.monotonic() + self._limit_s
                if time.monotonic() + wait_s > gives_up:
                    raise TransportError(
                        f"Chroma's server did not answer for {self._limit_s:g} s ({type(error).__name__}: {error}). "
                        "What it had taken before is kept; once it is back, run the same call again"
                    ) from error
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
