"""With how many cores a batch runs: one beside others, all when it is alone or the model is large."""

import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch

from support.rig import Rig, Sums
from tercet.engine import cores as cores_module
from tercet.engine import dispatcher as module
from tercet.engine import schedule as schedule_module
from tercet.engine.cores import may_share, rounds_alike
from tercet.engine.crew import Crew
from tercet.engine.engine import Engine
from tercet.engine.queue import Lane
from tercet.errors import TercetError
from tercet.nn.team import compute_with

WORKERS = 3


class Watched(Sums):
    """A model that keeps, for each batch, the cores it was given, and how many ran at once."""

    def __init__(self, gate=None, multiplied_weights=10**7, seconds=0.0):
        super().__init__(gate=gate)
        self.multiplied_weights, self.seconds = multiplied_weights, seconds
        self.cores, self.beside, self.under_way, self.started = [], [], 0, threading.Semaphore(0)
        self.lock = threading.Lock()

    def rows(self, batch, outputs):
        with self.lock:
            self.under_way += 1
            self.cores.append(GIVEN[threading.get_ident()])
            self.beside.append(self.under_way)
        self.started.release()
        time.sleep(self.seconds)
        try:
            return super().rows(batch, outputs)
        finally:
            with self.lock:
                self.under_way -= 1


GIVEN: dict[int, int] = {}


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setattr(module, "compute_with", lambda cores: GIVEN.update({threading.get_ident(): cores}))
    monkeypatch.setattr(cores_module, "rounds_alike", lambda cores: True)
    monkeypatch.setattr(schedule_module, "_BRIEF", 0)  # every batch is long enough for all cores
    made = Rig(max_batch_tokens=4, workers=WORKERS)
    yield made
    made.close()


def test_a_lone_batch_gets_all_cores_each_time(rig):
    rig.model("m", model := Watched())
    for i in range(5):
        rig.call("m", [i]).done.result(5)
    assert model.cores == [WORKERS] * 5


def test_a_short_batch_gets_all_cores_only_soon_after_another(rig, monkeypatch):
    rig.model("m", model := Watched())

    def run(brief, awake_s, length):
        monkeypatch.setattr(schedule_module, "_BRIEF", brief)
        monkeypatch.setattr(schedule_module, "_AWAKE_S", awake_s)
        rig.call("m", [0], length=length).done.result(5)
        return model.cores[-1]

    assert run(3 * 10**7, 60, length=3) == 1  # the first of all
    assert run(3 * 10**7, 60, length=3) == WORKERS
    assert run(3 * 10**7, 0, length=3) == 1
    assert run(3 * 10**7, 0, length=4) == WORKERS


def test_a_batch_that_would_not_gain_or_round_otherwise_gets_one(rig, monkeypatch):
    rig.model("tiny", tiny := Watched(multiplied_weights=10**5))
    rig.call("tiny", [1]).done.result(5)
    monkeypatch.setattr(cores_module, "rounds_alike", lambda cores: False)
    rig.model("m", model := Watched())
    rig.call("m", [1]).done.result(5)
    assert tiny.cores == model.cores == [1]


def test_rounding_is_compared_by_trying(monkeypatch):
    """True or false is the processor's to say; a product that depends on the cores is found out."""
    asked = []
    monkeypatch.setattr(cores_module, "compute_with", asked.append)
    assert rounds_alike.__wrapped__(2) is True and asked == [1, 2] * 6
    monkeypatch.setattr(cores_module.Linear, "forward", lambda self, x, activation: x + asked[-1])
    assert rounds_alike.__wrapped__(2) is False
    monkeypatch.setattr(cores_module, "rounds_alike", lambda cores: True)
    assert may_share(Watched(), 2) and not may_share(Watched(multiplied_weights=10), 2)


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), MemoryError()])
def test_a_trial_that_fails_is_a_no_and_no_call_waits_for_it(rig, monkeypatch, error):
    def fail(self, x, activation):
        raise error

    monkeypatch.setattr(cores_module.Linear, "forward", fail)
    monkeypatch.setattr(cores_module, "rounds_alike", rounds_alike.__wrapped__)
    rig.model("m", model := Watched())
    rig.call("m", [1]).done.result(5)
    assert model.cores == [1]


def test_a_worker_that_cannot_be_given_its_cores_fails_the_call_and_goes_on(rig, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "compute_with", lambda cores: 1 / 0)
        rig.model("m", model := Watched())
        with pytest.raises(TercetError, match="the batch was lost: ZeroDivisionError"):
            rig.call("m", [1]).done.result(5)
    rig.call("m", [2]).done.result(5)
    assert model.batches == [[2]] and rig.dispatcher.restarts == 1


def test_a_batch_is_over_before_its_caller_knows(rig):
    """So that what the caller sends next does not wait for it."""
    gate = threading.Event()
    rig.model("m", Watched(gate=gate))
    call, running = rig.call("m", [1]), []
    call.done.add_done_callback(lambda _: running.append(rig.dispatcher._schedule.running))
    gate.set()
    call.done.result(5)
    assert running == [0]
    assert rig.residency.unload(rig.residency.records["m"]), "its lease is over too"


def test_calls_that_wait_are_taken_together_and_get_all_cores(rig):
    gate = threading.Event()
    rig.model("m", model := Watched(gate=gate))
    first = rig.call("m", [0])
    assert model.started.acquire(timeout=5)
    rest = [rig.call("m", [i], length=1) for i in range(1, 5)]  # four tokens: one batch
    gate.set()
    for call in [first, *rest]:
        call.done.result(5)
    assert model.batches == [[0], [1, 2, 3, 4]] and model.cores == [WORKERS, WORKERS]


@pytest.mark.parametrize(
    ("callers", "items", "sizes", "cores"),
    [(12, 1, [4, 4, 4], [1, 1, 1]), (11, 1, [11], [WORKERS]), (1, 12, [12], [WORKERS])],
)
def test_what_many_callers_ask_is_shared_out_among_the_cores(rig, callers, items, sizes, cores):
    gate = threading.Event()
    rig.dispatcher._queue.max_batch_tokens = 12
    rig.model("m", model := Watched(gate=gate, seconds=0.05))
    first = rig.call("m", [0])
    assert model.started.acquire(timeout=5)
    calls = [first, *(rig.call("m", [i] * items, length=1) for i in range(callers))]
    gate.set()
    for call in calls:
        call.done.result(5)
    assert [len(batch) for batch in model.batches] == [1, *sizes] and model.cores == [WORKERS, *cores]
    assert sorted(chain.from_iterable(model.batches[1:])) == sorted(i for i in range(callers) for _ in range(items))


def test_many_batches_get_a_core_each_side_by_side(rig):
    rig.model("m", model := Watched(seconds=0.02))
    call = rig.call("m", list(range(12)), lane=Lane.BULK)
    call.done.result(5)
    assert call.columns.values.tolist() == list(range(12))
    assert set(model.cores) == {1} and max(model.beside) == WORKERS


def test_more_than_a_batch_that_waits_for_a_lone_one_then_runs_side_by_side(rig):
    gate = threading.Event()
    rig.model("m", model := Watched(gate=gate))
    first = rig.call("m", [0])
    assert model.started.acquire(timeout=5)
    rest = [rig.call("m", list(range(i, i + 12))) for i in (1, 20, 40)]
    time.sleep(0.05)
    assert model.cores == [WORKERS]
    gate.set()
    for call in [first, *rest]:
        call.done.result(5)
    assert model.cores[:8] == [WORKERS] + [1] * 7 and model.beside[0] == 1


def test_a_large_models_batches_run_one_at_a_time_on_all_cores(rig):
    rig.model("large", large := Watched(multiplied_weights=10**8, seconds=0.005))
    rig.model("small", small := Watched(seconds=0.005))
    calls = [rig.call(name, list(range(6)), lane=Lane.BULK) for name in ("large", "small", "large", "small")]
    for call in calls:
        call.done.result(10)
    assert set(large.cores) == {WORKERS} and set(large.beside) == {1}
    assert set(small.cores) <= {1, WORKERS}


def test_the_number_of_cores_is_the_calling_threads_own():
    before, seen = torch.get_num_threads(), []
    thread = threading.Thread(target=lambda: (compute_with(1), seen.append(torch.get_num_threads())))
    thread.start()
    thread.join()
    assert seen == [1] and torch.get_num_threads() == before


def test_a_lone_text_has_the_same_bytes_on_all_cores_as_on_one():
    model, text = "sentence-transformers/all-MiniLM-L6-v2", "how to read a csv file"
    with Engine(device="cpu", precision="float32") as engine:
        alone = engine.encode(model, [text]).dense
        narrow = _on_one_core(lambda: engine.encode(model, [text]).dense)
    assert np.array_equal(alone, narrow)


def _on_one_core(encode):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_module, "may_share", lambda model, cores: False)
        return encode()


class TestCrew:
    """Who sleeps, and who is woken."""

    def test_the_lowest_that_sleeps_is_woken_first_and_each_once(self):
        crew, order, threads = Crew(3), [], []

        def work(worker):
            with crew.lock:
                crew.sleep(worker)
                order.append(worker)

        for worker in (2, 0, 1):
            threads.append(threading.Thread(target=work, args=(worker,)))
            threads[-1].start()
        until = time.monotonic() + 5
        while time.monotonic() < until and len(crew._asleep) < 3:
            time.sleep(0.001)
        for expected in ([0], [0, 1], [0, 1, 2]):
            with crew.lock:
                crew.wake()
            while time.monotonic() < until and len(order) < len(expected):
                time.sleep(0.001)
            assert order == expected
        for thread in threads:
            thread.join(5)
        with crew.lock:
            crew.wake()  # nobody sleeps: nothing happens
