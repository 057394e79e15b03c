"""With how many cores a batch runs: one beside others, all when it is alone or the model is large."""

import threading
import time

import numpy as np
import pytest
import torch

from support.rig import Rig, Sums
from support.tiny_models import save_bert
from tercet.checkpoints.checkpoint import EncodeSettings
from tercet.checkpoints.open import open_checkpoint
from tercet.engine import dispatcher as module
from tercet.engine.cores import compute_with
from tercet.engine.crew import Crew
from tercet.engine.queue import Lane
from tercet.nn.batch import PackedBatch
from tercet.types import Item

WORKERS = 3


class Watched(Sums):
    """A model that keeps, for each batch, the cores it was given, and how many ran at once."""

    def __init__(self, gate=None, multiplied_weights=0, seconds=0.0):
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
    made = Rig(max_batch_tokens=4, workers=WORKERS)
    yield made
    made.close()


def test_a_lone_batch_gets_all_cores_each_time(rig):
    rig.model("m", model := Watched())
    for i in range(5):
        rig.call("m", [i]).done.result(5)
    assert model.cores == [WORKERS] * 5


def test_many_batches_get_a_core_each_side_by_side(rig):
    rig.model("m", model := Watched(seconds=0.02))
    call = rig.call("m", list(range(12)), lane=Lane.BULK)
    call.done.result(5)
    assert call.columns.values.tolist() == list(range(12))
    assert set(model.cores) == {1} and max(model.beside) == WORKERS


def test_what_comes_while_a_lone_batch_runs_waits_for_it_and_then_shares(rig):
    gate = threading.Event()
    rig.model("m", model := Watched(gate=gate))
    first = rig.call("m", [0])
    assert model.started.acquire(timeout=5)
    rest = [rig.call("m", [i]) for i in (1, 2, 3)]
    time.sleep(0.05)
    assert model.cores == [WORKERS]
    gate.set()
    for call in [first, *rest]:
        call.done.result(5)
    assert model.cores == [WORKERS, 1, 1, 1] and model.beside[0] == 1


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


def test_a_lone_vector_is_the_same_on_one_core_and_on_all(tmp_path):
    """To the tolerance of batch invariance; on processors that split long sums the last bit may differ."""
    checkpoint = open_checkpoint(str(save_bert(tmp_path / "m", seed=0).directory))
    model = checkpoint.load(torch.device("cpu"), torch.float32)
    batch = PackedBatch.of(checkpoint.encode([Item("hello world")], EncodeSettings()))
    vectors = []

    def compute(cores):
        compute_with(cores)
        vectors.append(np.asarray(model.rows(batch, ["dense"])["dense"]))

    for cores in (1, 2):
        thread = threading.Thread(target=compute, args=(cores,))
        thread.start()
        thread.join()
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6 * np.abs(vectors[0]).max()


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
