"""Calls: where their time went, and that nothing stays of them."""

import asyncio
import gc
import time
import weakref
from contextlib import contextmanager

import pytest

from support.tiny_models import save_bert
from tercet import Engine
from tercet.engine.calls import Call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_bert(folder)
    return str(folder)


def phases(timings):
    return timings.queue_ms, timings.tokenization_ms, timings.inference_ms, timings.total_ms


def test_the_phases_of_a_short_call_add_up_to_less_than_its_whole(model):
    with Engine(device="cpu", precision="float32") as engine:
        cold = engine.encode(model, ["hello world"]).timings
        assert cold.queue_ms >= engine.models()[0].load_ms, "the first call waits for its model"
        for result in (engine.encode(model, "hello"), engine.score(model, "hello", ["world", "there"])):
            queue, tokenization, inference, total = phases(result.timings)
            assert queue >= 0 and tokenization > 0 and inference > 0
            assert queue + tokenization + inference <= total


def test_every_chunk_and_batch_of_a_long_call_counts(model):
    with Engine(device="cpu", precision="float32") as engine:
        one = engine.encode(model, ["word " * 50]).timings
        many = engine.encode(model, ["word " * 50] * 2000)
        assert many.timings.inference_ms > one.inference_ms and many.timings.tokenization_ms > one.tokenization_ms
        assert many[7].timings is many.timings
        assert max(phases(many.timings)[:3]) <= many.timings.total_ms


def test_answers_without_a_forward_pass_have_no_inference():
    with Engine(device="cpu", precision="float32") as engine:
        timings = engine.encode("bm25", ["hello world"], output_types=["sparse"]).timings
        assert timings.inference_ms == timings.queue_ms == 0 and timings.total_ms > 0


@contextmanager
def without_collector():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_nothing_of_a_call_waits_for_the_garbage_collector(model, monkeypatch):
    made, begin = [], Call.__init__

    def counted(call, *args, **choices):
        begin(call, *args, **choices)
        made.append(weakref.ref(call))

    async def some(engine):
        await engine.aencode(model, "hello")
        await engine.aencode(model, ["hello world"] * 300, progress=lambda done, of: None)
        await engine.ascore(model, "hello", ["world", "there"])
        late = asyncio.create_task(engine.aencode(model, ["word " * 50] * 2000))
        await asyncio.sleep(0.05)
        late.cancel()
        await asyncio.wait([late])

    monkeypatch.setattr(Call, "__init__", counted)
    with Engine(device="cpu", precision="float32") as engine:
        engine.load(model)
        with without_collector():
            engine.encode(model, "hello")
            engine.encode(model, ["hello world"] * 300, progress=lambda done, of: None)
            asyncio.run(some(engine))
            for _ in range(500):  # a worker may be about to let go of its batch
                left = sum(call() is not None for call in made)
                if not left:
                    break
                time.sleep(0.01)
            assert len(made) >= 7 and left == 0
