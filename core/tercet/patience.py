"""`patiently`: what is away is waited for, and for no longer than was said. Needs tenacity, which adapters bring."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from tercet.errors import TercetError

T = TypeVar("T")

# Of an error: None where trying again does not help, else the seconds that it asks to wait at least, 0.0 for any.
Pause = Callable[[BaseException], float | None]

_BACKOFF = wait_exponential(multiplier=0.25, max=5.0) + wait_random(0, 0.25)  # the chance spreads callers


def patiently(
    call: Callable[[], T], patience_s: float, pause: Pause, away: Callable[[BaseException], TercetError] | None = None
) -> T:
    """Return what the call returns, made again for up to `patience_s` seconds after a failure that may pass.

    Only calls that may be made twice belong here: one whose answer was lost may have been carried out.

    Args:
        call: what to do.
        patience_s: counted from the first failure; 0 for no second attempt.
        pause: which failures may pass, and how long they ask to wait.
        away: makes the error to raise of the last failure; default the failure itself.

    Raises:
        TercetError: as `away` made it, once patience has run out.
        BaseException: whatever else the call raised.
    """

    def pause_s(state: RetryCallState) -> float:
        asked = pause(_error(state))
        return max(_BACKOFF(state), asked or 0.0)

    retrying = Retrying(
        retry=retry_if_exception(lambda error: pause(error) is not None),
        wait=pause_s,
        stop=_Limit(patience_s),
        reraise=True,
    )
    try:
        return retrying(call)
    except Exception as error:
        if away is None or pause(error) is None:
            raise
        raise away(error) from error


class _Limit:
    """Ends the attempts where the next would begin later than so long after the first failure."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._first: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        now = time.monotonic()
        self._first = self._first or now
        return now + state.upcoming_sleep > self._first + self._limit_s


def _error(state: RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
