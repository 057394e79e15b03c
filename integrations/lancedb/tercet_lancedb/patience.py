"""`encoded_patiently`: a server of models that went away is waited for, and for no longer than was said."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tercet.client import Client
from tercet.errors import EngineClosedError, TercetError
from tercet.patience import patiently
from tercet.types import Inference

T = TypeVar("T")


def encoded_patiently(inference: Inference, call: Callable[[], T], patience_s: float) -> T:
    """Return what the call returns, trying again for `patience_s` after a failure that may pass.

    LanceDB's own retries stay off: they repeat every error, hide what it was, and their pauses grow without limit.

    Raises:
        TercetError: the call's own error, at once if it cannot pass, else the last one.
    """

    def pause_s(error: BaseException) -> float | None:
        """An engine closed in this process stays closed, a server comes back."""
        may_pass = isinstance(error, TercetError) and error.retryable
        if not may_pass or (isinstance(error, EngineClosedError) and not isinstance(inference, Client)):
            return None
        return getattr(error, "retry_after_s", None) or 0.0

    return patiently(call, patience_s, pause_s)
