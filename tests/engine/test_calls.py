"""Calls: where their time went."""

import pytest

from support.tiny_models import save_bert
from tercet import Engine


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
