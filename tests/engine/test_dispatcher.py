"""The dispatcher: rows reach their calls, nothing is lost, overload and closing are clear."""

import threading
import time
from concurrent.futures import CancelledError

import pytest

from support.rig import Rig, Sums
from tercet.engine.queue import Lane
from tercet.errors import EngineClosedError, ModelLoadError, OverloadedError, TercetError


@pytest.fixture
def rig():
    made = []

    def build(**options):
        made.append(Rig(**options))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.mark.parametrize("lane", Lane)
def test_rows_come_back_in_the_order_of_the_call(rig, lane):
    r = rig(max_batch_tokens=16)
    r.model("m", Sums(0.5))
    call = r.call("m", [7, 3, 9, 1, 5, 8, 2], lane=lane)
    call.done.result(5)
    assert call.columns.values.tolist() == [7.5, 3.5, 9.5, 1.5, 5.5, 8.5, 2.5]
    assert r.dispatcher.queued_tokens == 0 and call.in_flight_tokens == 0


def test_calls_that_wait_together_share_batches(rig):
    gate = threading.Event()
    r = rig()
    r.model("m", model := Sums(gate=gate))
    calls = [r.call("m", [i]) for i in range(9)]
    gate.set()
    for i, call in enumerate(calls):
        call.done.result(5)
        assert call.columns.values.tolist() == [i]
    assert len(model.batches) <= 2  # whatever the worker took at once, then all the rest


def test_models_that_do_not_fit_together_all_get_their_turn(rig):
    r = rig(budget=1)
    for i in range(4):
        r.model(f"m{i}", Sums(i * 100))
    calls = [(i, r.call(f"m{i % 4}", [i])) for i in range(16)]
    for i, call in calls:
        call.done.result(20)
        assert call.columns.values.tolist() == [i + 100 * (i % 4)]


def test_what_an_interrupted_caller_left_is_done_before_the_end(rig):
    r = rig()
    r.model("m", Sums(0.5))
    call = r.call("m", [7], here=True)  # and its caller never runs it
    r.dispatcher.close(20)
    call.done.result(0)
    assert call.columns.values.tolist() == [7.5]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_cools_down_after_a_failure_is_refused_at_once(rig, workers):
    r = rig(workers=workers)
    r.model("bad", OSError("gone"))
    for _ in range(3):
        with pytest.raises(ModelLoadError, match="OSError: gone"):
            r.call("bad", [1]).done.result(5)


def test_a_model_that_cannot_load_fails_its_calls_with_their_own_errors(rig):
    r = rig()
    r.model("bad", OSError("gone"))
    r.model("good", Sums())
    bad, also, good = r.call("bad", [1]), r.call("bad", [2]), r.call("good", [3])
    errors = []
    for call in (bad, also):
        with pytest.raises(ModelLoadError, match="OSError: gone") as caught:
            call.done.result(5)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    good.done.result(5)


def test_a_full_queue_refuses_with_a_time_to_retry_and_recovers(rig):
    gate = threading.Event()
    r = rig(max_queue_tokens=40)
    r.model("m", Sums(gate=gate))
    calls = []
    with pytest.raises(OverloadedError, match="limit of 40") as caught:
        while len(calls) < 100:
            calls += [r.call("m", [1, 2, 3])]
    assert caught.value.retry_after_s > 0
    gate.set()
    for call in calls:
        call.done.result(5)
    r.call("m", [1]).done.result(5)


def test_cancelled_work_is_dropped_from_the_queue(rig):
    gate = threading.Event()
    r = rig(max_batch_tokens=4)
    r.model("m", model := Sums(gate=gate))
    first, doomed = r.call("m", [1]), r.call("m", [2, 3, 4])
    doomed.cancel()
    gate.set()
    first.done.result(5)
    with pytest.raises(CancelledError):
        doomed.done.result(5)
    r.call("m", [9]).done.result(5)
    ran = [i for batch in model.batches for i in batch]
    assert ran in ([1, 9], [1, 2, 9])  # one of the doomed call's may have been running already
    assert r.dispatcher.queued_tokens == 0


def test_a_worker_survives_a_failure_outside_the_model(rig, caplog):
    class Exits(Sums):
        def rows(self, batch, outputs):
            raise SystemExit("a thread tried to leave")

    r = rig()
    r.model("exits", Exits())
    r.model("m", Sums())
    with pytest.raises(TercetError, match="the batch was lost: SystemExit"):
        r.call("exits", [1]).done.result(5)
    r.call("m", [1]).done.result(5)
    assert r.dispatcher.alive and r.dispatcher.restarts == 1
    assert "restarted" in caplog.text


def test_close_drains_what_was_admitted_and_refuses_the_rest():
    r = Rig()
    gate = threading.Event()
    r.model("m", Sums(gate=gate))
    call = r.call("m", [5])
    closing = threading.Thread(target=r.close)
    closing.start()
    while not r.dispatcher._closing:
        time.sleep(0.001)
    with pytest.raises(EngineClosedError):
        r.call("m", [6])
    gate.set()
    closing.join(10)
    assert call.done.result(0) is None and call.columns.values.tolist() == [5]


def test_close_fails_what_does_not_finish_in_time():
    r = Rig()
    gate = threading.Event()
    r.model("m", Sums(gate=gate))
    running = r.call("m", [5])
    closing = threading.Thread(target=r.close, args=(0.05,))
    closing.start()
    with pytest.raises(EngineClosedError, match=r"within 0.05 s"):
        running.done.result(5)
    gate.set()
    closing.join(10)
    assert not closing.is_alive()
