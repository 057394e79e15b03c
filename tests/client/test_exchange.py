"""Retries: how long to wait, and when not to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.client.exchange import Retries
from tercet.errors import InvalidInputError, ModelLoadError, OverloadedError, TercetError, TransportError

SECONDS = st.floats(0, 1e4)


@given(SECONDS, st.integers(0, 100), st.none() | SECONDS)
def test_retry_after_is_never_cut_short_and_no_pause_passes_the_deadline(told, attempt, left_s):
    retries = Retries(limit=3, wait_for_capacity=True)
    pause_s = retries.pause_s(OverloadedError("full", retry_after_s=told), attempt, left_s)
    if pause_s is None:
        assert left_s is not None and told + max(told, 0.2) / 4 >= left_s
    else:
        assert told <= pause_s <= told + max(told, 0.2) / 4 and (left_s is None or pause_s < left_s)


@given(st.integers(0, 10_000))
def test_pauses_of_ones_own_grow_up_to_a_limit(attempt):
    pause_s = Retries(limit=10_001).pause_s(TransportError("gone"), attempt, None)
    whole = min(0.2 * 2 ** min(attempt, 20), 20)
    assert whole / 2 <= pause_s <= whole


def test_pauses_differ_so_that_callers_do_not_come_back_together():
    error = OverloadedError("full", retry_after_s=1)
    assert len({Retries().pause_s(error, 0, None) for _ in range(20)}) > 10


@pytest.mark.parametrize("kind", [TercetError, *TercetError.__subclasses__()])
def test_only_what_passes_by_itself_is_tried_again(kind):
    passing = {"OverloadedError", "ModelLoadingError", "EngineClosedError", "TransportError"}
    assert (Retries().pause_s(kind("why"), 0, None) is not None) is (kind.__name__ in passing)


@pytest.mark.parametrize(
    ("error", "waits"), [(OverloadedError, True), (TransportError, False), (ModelLoadError, False)]
)
def test_waiting_for_capacity_lifts_the_limit_for_capacity_alone(error, waits):
    for attempt in (3, 1000):
        assert Retries(3, False).pause_s(error("why"), attempt, None) is None
        assert (Retries(3, True).pause_s(error("why"), attempt, None) is not None) is waits


def test_no_retries_at_all():
    assert Retries(limit=0).pause_s(OverloadedError("full"), 0, None) is None
    assert Retries(limit=0, wait_for_capacity=True).pause_s(InvalidInputError("no"), 0, None) is None
