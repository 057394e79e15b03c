"""`Patience`: calls to a Chroma server that may be away for some seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import httpx

from tercet.errors import TransportError
from tercet.patience import patiently

P = ParamSpec("P")
R = TypeVar("R")

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
        return patiently(partial(call, *args, **keywords), self._limit_s, _pause_s, self._away)

    def _away(self, error: BaseException) -> TransportError:
        return TransportError(
            f"Chroma's server did not answer for {self._limit_s:g} s ({type(error).__name__}: {error}). "
            "What it had taken before is kept; once it is back, run the same call again"
        )


def _pause_s(error: BaseException) -> float | None:
    away = isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _AWAY
    return 0.0 if away or isinstance(error, httpx.TransportError) else None
