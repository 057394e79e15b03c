"""`patiently`: a server that went away is waited for, and for no longer than was said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tercet.client import Client
from tercet.errors import EngineClosedError, TercetError
from tercet.types import Inference

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0


def patiently(inference: Inference, call: Callable[[], T], patience_s: float) -> T:
    """Return what the call returns, trying again for `patience_s` after a failure that may pass.

    LanceDB's own retries stay off: they repeat every error, hide what it was, and their pauses grow without limit.

    Raises:
        TercetError: the call's own error, at once if it cannot pass, else the last one.
    """
    give_up_at = time.monotonic() + patience_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except TercetError as error:
            pause_s = max(pause_s, error.retry_after_s or 0)
            if not _may_pass(inference, error) or time.monotonic() + pause_s > give_up_at:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _may_pass(inference: Inference, error: TercetError) -> bool:
    """Return whether waiting may help: an engine closed in this process stays closed, a server comes back."""
    return error.retryable and (isinstance(inference, Client) or not isinstance(error, EngineClosedError))
