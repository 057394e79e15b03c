"""Events and state: what observers are told while an engine works, and what it says of itself."""

import threading
import time

import pytest

from support.tiny_models import save_bert
from tercet import Engine
from tercet.engine.events import BatchEvent, Observers, OutOfMemoryEvent, ResidencyEvent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_bert(folder)
    return str(folder)


def test_observers_come_and_go():
    observers, seen = Observers(), []
    assert not observers
    observers.add(seen.append)
    assert observers
    observers(OutOfMemoryEvent("m", "halve"))
    observers.remove(seen.append)
    observers(OutOfMemoryEvent("m", "refuse"))
    assert not observers and [event.step for event in seen] == ["halve"]


def test_loads_batches_and_evictions_are_told(tiny):
    seen = []
    with Engine("cpu", "float32") as engine:
        engine.observers.add(seen.append)
        tokens = engine.encode(tiny, ["hello world", "again"], is_query=True).tokens.sum()
        assert engine.state().used_bytes == engine.models()[0].size_bytes
        while not engine.unload(tiny):  # the batch's lease ends a moment after its results
            threading.Event().wait(0.01)
        assert engine.state().used_bytes == 0
    load, *batches, evict = seen
    assert isinstance(load, ResidencyEvent) and (load.kind, load.model) == ("load", tiny) and load.seconds > 0
    assert evict.kind == "evict" and evict.seconds is None
    assert all(isinstance(batch, BatchEvent) for batch in batches)
    assert {(batch.model, batch.outputs, batch.lane) for batch in batches} == {(tiny, ("dense",), "interactive")}
    assert sum(batch.sequences for batch in batches) == 2 and sum(batch.tokens for batch in batches) == tokens
    assert all(batch.seconds > 0 for batch in batches)


def test_state_tells_what_waits(tiny):
    release, held = threading.Event(), threading.Semaphore(0)

    def hold(event):
        if isinstance(event, BatchEvent):
            held.release()
            release.wait(30)

    with Engine("cpu", "float32", max_queue_tokens=1000) as engine:
        engine.load(tiny)
        assert engine.state().waiting == {} and engine.state().oldest_s == 0.0
        engine.observers.add(hold)
        several = ["one"] * 5  # more than their caller would run itself
        engine.encode(tiny, several)
        assert held.acquire(timeout=30)  # the first worker is held up, and no other runs a batch that is alone
        waiter = threading.Thread(target=engine.encode, args=(tiny, several))
        waiter.start()
        until = time.monotonic() + 30
        while not (state := engine.state()).waiting and time.monotonic() < until:
            threading.Event().wait(0.01)
        assert set(state.waiting) == {tiny} and state.queued_tokens == state.waiting[tiny].tokens > 0
        assert engine.state().oldest_s > 0 and state.max_queue_tokens == 1000 and state.alive and state.restarts == 0
        release.set()
        waiter.join(30)
        assert engine.state().waiting == {} and engine.state().tokens_per_s > 0


def test_a_checkpoint_names_its_tokens(tiny):
    with Engine("cpu", "float32") as engine:
        checkpoint = engine.checkpoint(tiny)
        assert engine.models()[0].loads == 0
        assert checkpoint.tokens([0, 10**6])[1] is None and isinstance(checkpoint.tokens([0])[0], str)
        row = engine.encode("bm25", "Running runners, running!", output_types=["sparse"])["sparse"]
        words = engine.checkpoint("bm25").tokens([*row.indices.tolist(), 7], "Running runners, running!")
        assert sorted(words[:-1]) == ["runners", "running"] and words[-1] is None
