"""Waiting for what is away: as long as said, no longer, and only for what may pass."""

import pytest

pytest.importorskip("tenacity")

from tercet.errors import TransportError
from tercet.patience import patiently


class Away:
    """Fails so often, then answers."""

    def __init__(self, failures, error=ConnectionError):
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error("away")
        return "back"


def pause(error):
    return 0.0 if isinstance(error, ConnectionError) else None


def test_a_failure_that_passes_is_outlasted():
    call = Away(2)
    assert patiently(call, 30, pause) == "back" and call.calls == 3


def test_what_cannot_pass_is_raised_at_once():
    call = Away(1, ValueError)
    with pytest.raises(ValueError, match="away"):
        patiently(call, 30, pause, lambda error: TransportError("gone"))
    assert call.calls == 1


@pytest.mark.parametrize("patience_s", [0, 0.6])
def test_patience_ends_with_the_error_that_it_was_given(patience_s):
    call = Away(10**6)
    with pytest.raises(TransportError, match="gone: away") as caught:
        patiently(call, patience_s, pause, lambda error: TransportError(f"gone: {error}"))
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert (call.calls == 1) == (patience_s == 0)


def test_a_wait_that_would_outlast_the_limit_is_not_begun():
    call = Away(1)
    with pytest.raises(ConnectionError):
        patiently(call, 5, lambda error: 60.0)
    assert call.calls == 1
