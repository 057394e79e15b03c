"""Residency: the budget holds, eviction is true LRU, loads are single-flight, failures stay alone."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tercet.engine.events import Observers
from tercet.engine.residency import Residency
from tercet.errors import CheckpointError, EngineClosedError, ModelLoadError


class Weights:
    """Stands for a loaded model; residency never looks inside."""

    def __init__(self, name):
        self.name = name


class Watch:
    """Checks, at every event, the budget and that the evicted model was the least recently used free one."""

    def __init__(self, budget):
        self.budget, self.events, self.faults = budget, [], []

    def __call__(self, event):
        self.events.append((event.kind, event.model))
        if event.used_bytes > self.budget:
            self.faults.append(f"{event.used_bytes} bytes of {self.budget}")
        if event.kind == "evict":
            free = {
                name: last_used
                for name, (state, last_used, leases, pinned) in event.records.items()
                if state == "resident" and not leases and not pinned
            }
            if min(free, key=free.get) != event.model:
                self.faults.append(f"evicted {event.model}, free were {free}")


@pytest.fixture
def make():
    made = []

    def build(budget, **options):
        watch = Watch(budget)
        observers = Observers()
        observers.add(watch)
        residency = Residency(budget, observers=observers, **options)
        made.append(residency)
        return residency, watch

    yield build
    for residency in made:
        residency.close()


def add(residency, name, size=1, load=None):
    return residency.add(name, size, load or (lambda: Weights(name)))


def use(residency, record):
    lease = residency.acquire(record).result(5)
    lease.touch()
    lease.release()
    return lease.model.name


def test_the_least_recently_used_model_goes(make):
    residency, watch = make(2)
    a, b, c = (add(residency, name) for name in "abc")
    for record in (a, b, a, c):
        assert use(residency, record) == record.name
    assert [b.state, a.state, c.state] == ["available", "resident", "resident"]
    assert watch.events == [("load", "a"), ("load", "b"), ("evict", "b"), ("load", "c")]
    assert (a.hits, a.loads, b.evictions) == (2, 1, 1)
    assert residency.used_bytes == 2
    assert not watch.faults


def test_a_leased_model_stays_and_the_load_waits_for_it(make):
    residency, watch = make(1)
    a, b = add(residency, "a"), add(residency, "b")
    lease = residency.acquire(a).result(5)
    waiting = residency.acquire(b)
    while not residency.contended:
        time.sleep(0.001)
    assert a.state == "resident" and not waiting.done()
    lease.release()
    lease.release()  # a second release changes nothing
    assert waiting.result(5).model.name == "b"
    assert a.state == "available" and a.leases == 0
    assert not watch.faults


def test_an_idle_model_does_not_slip_back_ahead_of_a_waiting_load(make):
    residency, _ = make(1)
    a, b = add(residency, "a"), add(residency, "b")
    lease = residency.acquire(a).result(5)
    for_b = residency.acquire(b)
    while not residency.contended:
        time.sleep(0.001)
    lease.release()
    again = residency.acquire(a)
    first = for_b.result(5)
    assert not again.done()
    first.release()
    assert again.result(5).model.name == "a"


def test_pinned_models_stay_and_too_large_ones_are_refused_with_the_reason(make):
    residency, watch = make(3)
    a, b, c = add(residency, "a", 2), add(residency, "b", 2), add(residency, "c", 1)
    residency.pin(a, True)
    use(residency, a)
    with pytest.raises(ModelLoadError, match=r"b needs 2 bytes.*budget of 3.*pinned models hold 2"):
        use(residency, b)
    assert use(residency, c) == "c"
    with pytest.raises(ModelLoadError, match="huge needs 9 bytes"):
        use(residency, add(residency, "huge", 9))
    residency.pin(a, False)
    residency.unload(b)
    assert use(residency, b) == "b"
    assert not watch.faults


def test_many_callers_share_one_load_while_others_are_served(make):
    residency, _ = make(2)
    gate, started, loads = threading.Event(), threading.Event(), []

    def slow():
        loads.append(1)
        started.set()
        assert gate.wait(5)
        return Weights("slow")

    a, b = add(residency, "a"), add(residency, "slow", load=slow)
    use(residency, a)
    futures = [residency.acquire(b) for _ in range(20)]
    assert started.wait(5)
    assert b.state == "loading"
    assert use(residency, a) == "a"
    gate.set()
    leases = [future.result(5) for future in futures]
    assert len(loads) == 1 and b.leases == 20
    assert len({id(lease.model) for lease in leases}) == 1


def test_a_failed_load_fails_its_callers_alone_and_cools_down(make):
    residency, watch = make(1)
    outcomes = [OSError("disk on fire"), None]

    def flaky():
        if (error := outcomes.pop(0)) is not None:
            raise error
        return Weights("flaky")

    record = add(residency, "flaky", load=flaky)
    with pytest.raises(ModelLoadError, match="OSError: disk on fire"):
        use(residency, record)
    assert record.state == "failed" and residency.used_bytes == 0
    with pytest.raises(ModelLoadError, match="disk on fire"):  # cooling down: not tried again
        use(residency, record)
    assert len(outcomes) == 1
    assert use(residency, add(residency, "sound")) == "sound"
    record.retry_at = 0.0
    assert use(residency, record) == "flaky"
    assert (record.attempts, record.error) == (0, None)
    assert not watch.faults


def test_damaged_files_stay_failed_until_unload(make):
    residency, _ = make(1)
    outcomes = [CheckpointError("torn"), None]

    def load():
        if (error := outcomes.pop(0)) is not None:
            raise error
        return Weights("mended")

    record = add(residency, "torn", load=load)
    with pytest.raises(CheckpointError, match="torn"):
        use(residency, record)
    assert record.retry_at == float("inf")
    assert residency.unload(record)
    assert use(residency, record) == "mended"


def test_idle_models_are_dropped_after_their_time(make):
    residency, watch = make(3, idle_ttl_s=0.05)
    a, busy = add(residency, "a"), add(residency, "busy")
    use(residency, a)
    lease = residency.acquire(busy).result(5)
    assert gone(a) and busy.state == "resident"
    lease.release()
    assert gone(busy)
    assert not watch.faults


def gone(record):
    until = time.monotonic() + 5
    while record.state != "available" and time.monotonic() < until:
        time.sleep(0.01)
    return record.state == "available"


def test_the_loader_sleeps_while_models_are_used(make, monkeypatch):
    residency, _ = make(3)
    a = add(residency, "a")
    use(residency, a)
    wakes = []
    monkeypatch.setattr(residency, "_evict_expired", lambda: wakes.append(1))
    for _ in range(5):
        use(residency, a)
        time.sleep(0.02)
    assert len(wakes) <= 1  # it may still have been on its way to sleep


def test_a_withdrawn_request_loads_nothing(make):
    residency, watch = make(1)
    a, b = add(residency, "a"), add(residency, "b")
    lease = residency.acquire(a).result(5)
    withdrawn = residency.acquire(b)
    assert withdrawn.cancel()
    lease.release()
    assert use(residency, a) == "a"
    assert ("load", "b") not in watch.events


def test_evict_idle_frees_all_but_leased_and_pinned(make):
    residency, _ = make(3)
    a, b, c = (add(residency, name) for name in "abc")
    residency.pin(b, True)
    for record in (a, b):
        use(residency, record)
    lease = residency.acquire(c).result(5)
    assert residency.evict_idle() == 1
    assert [a.state, b.state, c.state] == ["available", "resident", "resident"]
    lease.release()


def test_close_fails_those_who_wait():
    residency = Residency(1)
    lease = residency.acquire(add(residency, "a")).result(5)
    waiting = residency.acquire(add(residency, "b"))
    closing = threading.Thread(target=residency.close)
    closing.start()
    with pytest.raises(EngineClosedError):
        waiting.result(5)
    lease.release()
    closing.join(5)
    assert not closing.is_alive()
    with pytest.raises(EngineClosedError):
        residency.acquire(add(residency, "c")).result(5)


@pytest.mark.parametrize("seed", range(3))
def test_under_fire_the_budget_holds_and_every_eviction_is_lru(make, seed):
    residency, watch = make(7)
    records = [add(residency, f"m{i}", 1 + i % 4) for i in range(10)]

    def run(worker):
        rng = random.Random(seed * 100 + worker)
        for _ in range(60):
            record = rng.choice(records)
            lease = residency.acquire(record).result(20)
            assert lease.model.name == record.name
            lease.touch()
            if rng.random() < 0.2:
                time.sleep(0.0005)
            lease.release()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(run, range(12)))
    assert not watch.faults
    assert all(record.leases == 0 for record in records)
    assert residency.used_bytes == sum(r.size_bytes for r in records if r.state == "resident") <= 7
    assert sum(kind == "evict" for kind, _ in watch.events) > 10
