"""The engine as its callers see it: results, bad input, asyncio, streaming, faults."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tercet
from support.bad_input import BAD, encode_badly
from support.tiny_models import mean_vectors, save_bert
from tercet import (
    CheckpointError,
    DeadlineExceededError,
    Embeddings,
    Engine,
    EngineClosedError,
    Inference,
    InvalidInputError,
    Item,
    ModelNotFoundError,
    TercetError,
    UnsupportedModelError,
    UnsupportedOperationError,
)
from tercet.checkpoints.open import StoredCheckpoint
from tercet.engine.events import BatchEvent
from tercet.engine.pending import is_brief
from tercet.nn.int8 import has_int8
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.pairs import has_pairs

TEXTS = ["hello world", "the quick brown fox", "", "numbers 0 1 2", "café 你好"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return str(folder), save_bert(folder)


@pytest.fixture(scope="module")
def model(bert):
    return bert[0]


@pytest.fixture(scope="module")
def engine():
    with Engine(precision="float32") as engine:
        yield engine


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_gives_columns_and_one_item_gives_one_embedding(engine, bert):
    model, reference = bert
    batch = engine.encode(model, TEXTS)
    assert isinstance(batch, Embeddings) and isinstance(engine, Inference)
    np.testing.assert_allclose(batch.dense, mean_vectors(reference, TEXTS), atol=1e-5)
    assert batch.dense.dtype == np.float32 and batch.sparse is None and batch.multivector is None
    one = engine.encode(model, Item(text=TEXTS[0], id="mine"))
    np.testing.assert_allclose(one["dense"], batch.dense[0], atol=1e-6)
    assert one.id == "mine" and one.tokens == batch.tokens[0] and not one.truncated


def test_outputs_come_together(engine, model):
    both = engine.encode(model, TEXTS, output_types=["dense", "multivector"])
    assert len(both.multivector) == len(TEXTS)
    assert [len(matrix) for matrix in both.multivector] == both.tokens.tolist()
    np.testing.assert_allclose(np.linalg.norm(both.multivector.values, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(both.dense, engine.encode(model, TEXTS).dense, atol=1e-6)


def test_dimensions_and_output_types_are_applied(engine, model):
    full = engine.encode(model, TEXTS)
    np.testing.assert_array_equal(engine.encode(model, TEXTS, dimensions=8).dense, full.dense[:, :8])
    for dtype, kind in (("float16", np.float16), ("int8", np.int8), ("uint8", np.uint8)):
        small = engine.encode(model, TEXTS, output_dtype=dtype)
        assert small.dense.dtype == kind
        if small.quantization is not None:
            back = small.dense * small.quantization.scale[:, None] + small.quantization.offset[:, None]
            assert np.abs(back - full.dense).max() <= small.quantization.scale.max()
    bits = engine.encode(model, TEXTS, output_dtype="ubinary").dense
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1), full.dense > 0)


def test_token_pooling_keeps_fewer_unit_vectors(engine, model):
    texts = ["the quick brown fox jumps over the lazy dog and says hello world"]
    whole = engine.encode(model, texts, output_types=["multivector"]).multivector[0]
    pooled = engine.encode(model, texts, output_types=["multivector"], options={"pool_factor": 3}).multivector[0]
    assert 1 < len(pooled) <= -(-(len(whole) - 1) // 3) + 1
    np.testing.assert_allclose(pooled[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-6)


def test_score_ranks_by_index_and_top_k_keeps_all_scores(engine, model):
    scores = engine.score(model, "brown fox", [Item(text=t, id=f"d{i}") for i, t in enumerate(TEXTS)], top_k=2)
    vectors = engine.encode(model, TEXTS).dense
    query = engine.encode(model, "brown fox", is_query=True)["dense"]
    np.testing.assert_allclose(scores.scores, vectors @ query, rtol=1e-5)
    assert [row.rank for row in scores] == [0, 1]
    assert scores[0].index == int(np.argmax(scores.scores)) and scores[0].id == f"d{scores[0].index}"
    assert scores[0].score == scores.scores.max()
    maxsim = engine.score(model, "brown fox", TEXTS, options={"scoring": "maxsim"})
    matrices = engine.encode(model, TEXTS, output_types=["multivector"]).multivector
    q = engine.encode(model, "brown fox", is_query=True, output_types=["multivector"])["multivector"]
    np.testing.assert_allclose(maxsim.scores, [(q @ m.T).max(1).sum() for m in matrices], rtol=1e-4)


def test_equal_texts_rank_in_request_order(engine, model):
    assert [row.index for row in engine.score(model, "q", ["same"] * 5)] == [0, 1, 2, 3, 4]


def test_bm25_needs_no_device(engine):
    batch = engine.encode("bm25", ["the csv reader reads csv", "nothing"], output_types=["sparse"])
    assert batch.sparse is not None and len(batch.sparse) == 2 and len(batch.sparse[0]) > 0
    assert engine.score("bm25", "csv", ["a csv file", "a table"])[0].index == 0


def test_models_are_described(engine, model):
    engine.encode(model, "x")
    info = next(info for info in engine.models() if info.id == model)
    assert (info.state, info.architecture, info.outputs) == ("resident", "BertModel", ("dense", "multivector"))
    assert info.resident_bytes == info.size_bytes > 0 and info.hits > 0 and info.precision == "float32"
    shape = vector_shape()  # heads of eight numbers fill a vector of AVX2, and not one of AVX-512
    attention = "fused" if shape is not None and 8 % shape[0] == 0 else "runs"
    assert info.kernels["attention"] == attention and info.load_ms > 0


def test_a_long_call_streams_with_progress_and_keeps_its_order(engine, bert):
    model, reference = bert
    expected = mean_vectors(reference, TEXTS)
    seen, thread = [], threading.get_ident()

    def progress(done, total):
        assert threading.get_ident() == thread and total == 3000
        seen.append(done)

    batch = engine.encode(model, TEXTS * 600, progress=progress)
    np.testing.assert_allclose(batch.dense.reshape(600, 5, -1), np.broadcast_to(expected, (600, 5, 32)), atol=1e-5)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 3000


# ── asyncio ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_awaitable_form_gives_the_same(engine, bert):
    model, reference = bert

    async def both():
        return await asyncio.gather(
            *(engine.aencode(model, text) for text in TEXTS), engine.ascore(model, "brown fox", TEXTS)
        )

    *embeddings, scores = asyncio.run(both())
    expected = mean_vectors(reference, TEXTS)
    for embedding, vector in zip(embeddings, expected, strict=True):
        np.testing.assert_allclose(embedding["dense"], vector, atol=1e-5)
    np.testing.assert_array_equal(scores.order, engine.score(model, "brown fox", TEXTS).order)


def test_a_cancelled_task_drops_its_work(engine, model):
    async def cancelled():
        task = asyncio.create_task(engine.aencode(model, TEXTS * 4000))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert engine.encode(model, "still here", timeout_s=30)["dense"].shape == (32,)


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do(engine, model, case):
    _, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        encode_badly(engine, model, case)


@pytest.mark.parametrize("items", [[], None, 5])
def test_score_refuses_bad_documents(engine, model, items):
    with pytest.raises(InvalidInputError, match="items"):
        engine.score(model, "q", items)


def test_score_refuses_what_the_model_cannot_do(engine, model):
    with pytest.raises(UnsupportedOperationError, match="cannot score by 'cross-encoder'; it can by: dense"):
        engine.score(model, "q", ["d"], options={"scoring": "cross-encoder"})
    with pytest.raises(InvalidInputError, match="unknown option 'lora'"):
        engine.score(model, "q", ["d"], options={"lora": "legal"})
    with pytest.raises(InvalidInputError, match="top_k must be a whole number from 1"):
        engine.score(model, "q", ["d"], top_k=0)
    with pytest.raises(InvalidInputError, match="item query is a int"):
        engine.score(model, 3, ["d"])


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_model_must_be_named(engine, name):
    with pytest.raises(InvalidInputError, match="model must be"):
        engine.encode(name, "x")


def test_an_unknown_model_is_not_found(engine):
    with pytest.raises(ModelNotFoundError, match="no-such/model"):
        engine.encode("no-such/model", "x", timeout_s=30)


def test_names_that_lead_nowhere_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("tercet.engine.catalogue._RETRY_OPEN_AFTER_S", 0.0)
    with Engine(precision="float32") as engine:
        for i in range(20):
            with pytest.raises(ModelNotFoundError):
                engine.encode(f"no-such/model-{i}", "x", timeout_s=30)
        assert len(engine._catalogue._opening) <= 1


def test_a_directory_that_is_no_model_says_so(engine, tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        engine.encode(str(tmp_path), "x", timeout_s=30)


def test_a_megabyte_of_text_is_cut_and_flagged(engine, bert):
    model, reference = bert
    text = "hello world " * 90_000
    batch = engine.encode(model, ["short", text], timeout_s=60)
    assert batch.truncated.tolist() == [False, True]
    assert batch.tokens[1] == reference.config["max_position_embeddings"]
    np.testing.assert_allclose(batch.dense[1:], mean_vectors(reference, [text[:5000]]), atol=1e-5)


def test_weights_with_nan_are_an_error_and_the_engine_lives(engine, tmp_path, model):
    save_bert(tmp_path, seed=5)
    weights = load_file(tmp_path / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][:] = np.nan
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        engine.encode(str(tmp_path), TEXTS, timeout_s=30)
    assert engine.encode(model, "x", timeout_s=30)["dense"].shape == (32,)


@pytest.mark.parametrize(
    "keywords", [{"device": "tpu"}, {"precision": "float8"}, {"memory_budget": "lots"}, {"memory_budget": -1}]
)
def test_bad_engine_settings_are_refused(keywords):
    with pytest.raises(InvalidInputError):
        Engine(**keywords)


# ── time, life and death ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deadline_ends_the_wait_and_frees_the_queue(engine, model):
    with pytest.raises(DeadlineExceededError, match=r"timeout_s=0\.01 .* of 20,000 items done"):
        engine.encode(model, TEXTS * 4000, timeout_s=0.01)
    assert engine.encode(model, "x", timeout_s=30)["dense"].shape == (32,)


def test_an_exception_in_progress_ends_the_call(engine, model):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.encode(model, TEXTS, progress=stop)
    assert engine.encode(model, "x", timeout_s=30)["dense"].shape == (32,)


def test_load_unload_and_pin(model, tmp_path):
    save_bert(tmp_path, seed=1)
    other = str(tmp_path)
    with Engine(precision="float32") as probe:
        size = probe.load(model).size_bytes
    with Engine(precision="float32", memory_budget=size) as engine:
        assert engine.pin(model).pinned
        with pytest.raises(tercet.ModelLoadError, match="pinned models hold"):
            engine.encode(other, "x")
        assert not engine.pin(model, False).pinned
        assert engine.load(other).state == "resident"
        states = {info.id: info.state for info in engine.models()}
        assert states == {model: "available", other: "resident"}
        assert engine.unload(other) and engine.unload("never seen")
        assert all(info.resident_bytes == 0 for info in engine.models())
        assert engine.encode(model, "x")["dense"].shape == (32,)


def test_whoever_closes_waits_for_who_closes_already(model):
    held, go_on = threading.Semaphore(0), threading.Event()

    def hold(event):
        if isinstance(event, BatchEvent):
            held.release()
            go_on.wait(30)

    engine = Engine("cpu", "float32")
    engine.observers.add(hold)
    engine.encode(model, "a text")
    assert held.acquire(timeout=30)  # a worker is busy now
    closers = [threading.Thread(target=engine.close, args=(0.0,)) for _ in range(2)]
    for closer in closers:
        closer.start()
    closers[1].join(0.3)
    assert all(closer.is_alive() for closer in closers)
    go_on.set()
    for closer in closers:
        closer.join(30)
    assert not engine.alive and not any(closer.is_alive() for closer in closers)


def test_a_closed_engine_refuses_and_stops_its_threads(model):
    before = threading.active_count()
    engine = Engine(precision="float32")
    engine.encode(model, "x")
    assert engine.alive
    engine.close()
    engine.close()
    assert not engine.alive
    with pytest.raises(EngineClosedError):
        engine.encode(model, "x")
    assert threading.active_count() <= before + 1


def test_a_close_that_is_interrupted_is_taken_up_when_the_process_ends(model, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    engine = Engine(precision="float32")
    engine.encode(model, "x")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(engine._residency, "close", interrupted)
        engine.close()
    assert engine._stop.alive
    engine._stop()  # as at the end of a process
    assert not engine._residency._thread.is_alive()


def test_an_engine_that_is_forgotten_stops_by_itself(model):
    engine = Engine(precision="float32")
    engine.encode(model, "x")
    stop, gone = engine._stop, weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None and not stop.alive


def test_an_unloaded_model_is_let_go_of_at_once(model):
    """No worker that waits for its next batch holds on to the model of its last."""
    with Engine(precision="float32") as engine:
        engine.encode(model, "x")
        (resident,) = engine._residency.records.values()
        gone = weakref.ref(resident.model)
        limit = time.monotonic() + 30
        while not engine.unload(model) or gone() is not None:
            assert time.monotonic() < limit, "something still holds the model"
            time.sleep(0.01)


def test_every_error_is_a_tercet_error():
    assert all(issubclass(kind, TercetError) for _, kind, _ in BAD.values())


@pytest.mark.parametrize(
    ("texts", "brief"),
    [
        ("one", True),
        (["one"] * 4, True),
        (["x" * 100] * 4, True),
        ((), True),
        ("x" * 401, False),
        (["x" * 101] * 4, False),
        (["one"] * 5, False),
        (Item(text="one"), False),
        ([Item(text="one")], False),
        ([None], False),
        (iter(["one"]), False),
    ],
)
def test_only_few_short_texts_are_brief(texts, brief):
    assert is_brief(texts) == brief


def test_only_a_brief_call_is_tokenised_on_the_event_loop(engine, model, monkeypatch):
    threads, encode = [], StoredCheckpoint.encode

    def watched(self, *arguments):
        threads.append(threading.current_thread())
        return encode(self, *arguments)

    monkeypatch.setattr(StoredCheckpoint, "encode", watched)
    for text in ("short", "long " * 100):
        asyncio.run(engine.aencode(model, [text]))
    brief, other = threads
    assert brief is threading.current_thread() and other.name.startswith("tercet-host")


@pytest.mark.parametrize(
    ("precision", "least"),
    [
        ("bfloat16", 0.999),
        pytest.param("int8", 0.99, marks=pytest.mark.skipif(not has_int8(), reason="no int8 on this processor")),
        pytest.param("int16", 0.999999, marks=pytest.mark.skipif(not has_pairs(), reason="no int16 here")),
    ],
)
def test_short_precisions_stay_close(bert, precision, least):
    model, reference = bert
    with Engine(precision=precision) as engine:
        vectors = engine.encode(model, TEXTS).dense
        info = engine.describe(model)
        assert info.precision == precision and info.resident_bytes <= info.size_bytes
    expected = mean_vectors(reference, TEXTS)
    cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    assert vectors.dtype == np.float32 and cosines.min() >= least
