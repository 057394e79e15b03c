"""One contract for everything that encodes and scores: the engine, and clients of it however they reach it.

Same results byte for byte, same exceptions, same words.
"""

import numpy as np
import pytest

pytest.importorskip("torch")

import httpx

from support.asgi import AsgiTransport, Blocking, running
from support.bad_input import BAD, encode_badly
from support.hub_cache import cached
from support.results import assert_same
from support.servers import live_server
from support.tiny_models import save_bert
from tercet import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    Engine,
    EngineClosedError,
    Inference,
    InvalidInputError,
    Item,
    ModelNotFoundError,
    UnsupportedOperationError,
)
from tercet_server.app import create_app
from tercet_server.settings import Settings

MODEL = "tiny/bert"
TEXTS = ["hello world", "the quick brown fox", "", "numbers 0 1 2", "café 你好"]
WAYS = ["engine", "asgi", "async", "json", "socket"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("hub")
    save_bert(cached(cache, MODEL))
    return cache


@pytest.fixture(scope="module")
def engine(cache):
    with Engine(device="cpu", precision="float32", cache_dir=cache) as engine:
        engine.load(MODEL)
        yield engine


@pytest.fixture(scope="module")
def ways(engine, cache):
    """Every way to the model, by name; all but the socket's lead to one engine."""
    app = create_app(engine, Settings(models=(MODEL,)))
    flags = {"models": MODEL, "cache_dir": str(cache), "device": "cpu", "precision": "float32"}
    with running(app) as portal, live_server(flags) as server:
        http = httpx.Client(transport=AsgiTransport(app, portal))
        asynchronous = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
        url = "http://server.test"
        with Client(server.url) as socket:
            yield {
                "engine": engine,
                "asgi": Client(url, http_client=http),
                "async": Blocking(AsyncClient(url, http_client=asynchronous), portal),
                "json": Client(url + "/", http_client=http, answers="json"),
                "socket": socket,
            }


@pytest.fixture(params=WAYS)
def inference(request, ways):
    return ways[request.param]


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────

RESULTS = {
    "one text": lambda i: i.encode(MODEL, "hello world"),
    "one item": lambda i: i.encode(MODEL, Item(text="hello", id="é")),
    "texts": lambda i: i.encode(MODEL, TEXTS),
    "ids": lambda i: i.encode(MODEL, [Item(text=t, id=f"d{n}" if n % 2 else None) for n, t in enumerate(TEXTS)]),
    "token ids": lambda i: i.encode(MODEL, [Item(input_ids=[2, 7, 3]), Item(input_ids=np.array([4], np.int32))]),
    "queries": lambda i: i.encode(MODEL, TEXTS, is_query=True, prompt="ask: "),
    "both outputs": lambda i: i.encode(MODEL, TEXTS, output_types=["multivector", "dense"]),
    "pooled": lambda i: i.encode(MODEL, TEXTS, output_types="multivector", options={"pool_factor": 2}),
    "fewer dimensions": lambda i: i.encode(MODEL, TEXTS, dimensions=8),
    "cut at the start": lambda i: i.encode(MODEL, ["a b c " * 900, "x"], truncate="start"),
    "sparse": lambda i: i.encode("bm25", ["a csv reader", "", "the the"], output_types=["sparse"]),
    "sparse, cut": lambda i: i.encode("bm25", ["a csv reader of files"], output_types=["sparse"], options={"top_k": 2}),
    "a hundred texts": lambda i: i.encode(MODEL, [f"text {n}" for n in range(100)]),
    "scores": lambda i: i.score(MODEL, "brown fox", TEXTS),
    "best scores": lambda i: i.score(MODEL, Item(text="fox"), [Item(text=t, id=t) for t in TEXTS], top_k=2),
    "ties": lambda i: i.score(MODEL, "q", ["same"] * 7, top_k=5),
    "late interaction": lambda i: i.score(MODEL, "brown fox", TEXTS, options={"scoring": "maxsim"}),
    "a hundred scores": lambda i: i.score("bm25", "text 7", [f"text {n}" for n in range(100)]),
    **{
        f"{dtype} vectors": lambda i, dtype=dtype: i.encode(
            MODEL, TEXTS, output_types=["dense", "multivector"], output_dtype=dtype
        )
        for dtype in ("float16", "int8", "uint8", "binary", "ubinary")
    },
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_are_the_same_to_the_last_bit(engine, inference, case):
    expected, result = RESULTS[case](engine), RESULTS[case](inference)
    assert_same(result, expected, but=("timings",))
    assert result.timings.total_ms > 0


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_an_inference_and_gives_memory_of_the_callers_own(ways, way):
    inference = ways[way]
    assert way == "async" or isinstance(inference, Inference)
    result = inference.encode(MODEL, TEXTS, output_types=["dense", "multivector"], output_dtype="int8")
    for column in (result.dense, result.multivector.values, result.tokens, result.quantization.scale):
        assert column.flags.writeable and column.flags.aligned


def test_a_model_is_described_alike(engine, inference):
    ours, theirs = engine.describe(MODEL), inference.describe(MODEL)
    assert len(ours.fingerprint) == 32 and theirs.fingerprint == ours.fingerprint
    assert (theirs.id, theirs.revision, theirs.dims) == (MODEL, ours.revision, ours.dims)
    with pytest.raises(ModelNotFoundError):
        inference.describe("no/such")


def test_a_long_input_keeps_its_order_and_tells_its_progress(engine, inference):
    items = [Item(text=f"{TEXTS[n % 5]} {n}", id=str(n)) for n in range(3000)]
    seen = []
    result = inference.encode(
        MODEL, items, output_types=["dense", "multivector"], progress=lambda done, total: seen.append((done, total))
    )
    assert result.ids == [item.id for item in items]
    assert seen[0] == (0, 3000) and seen[-1] == (3000, 3000) and seen == sorted(seen)
    for n in (0, 1023, 1024, 2047, 2048, 2999):
        alone = engine.encode(MODEL, items[n], output_types=["dense", "multivector"])
        np.testing.assert_allclose(result[n]["dense"], alone["dense"], atol=1e-5)
        np.testing.assert_allclose(result[n]["multivector"], alone["multivector"], atol=1e-5)


def test_long_lists_are_ranked_as_a_whole(inference):
    items = [f"{TEXTS[n % 5]} {n}" for n in range(2500)]
    ranked = inference.score("bm25", "1776 fox", items, top_k=3)
    assert ranked[0].index == 1776 and items[1776] == "the quick brown fox 1776"
    assert len(ranked) == 3 and len(ranked.scores) == 2500
    np.testing.assert_array_equal(ranked.order, np.argsort(-ranked.scores, kind="stable")[:3])


# ── exceptions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def raised(call):
    with pytest.raises(Exception) as caught:
        call()
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_the_same_words(engine, inference, case):
    expected = raised(lambda: encode_badly(engine, MODEL, case))
    assert expected[0] is BAD[case][1]
    assert raised(lambda: encode_badly(inference, MODEL, case)) == expected


ERRORS = {
    "no documents": (lambda i: i.score(MODEL, "q", []), InvalidInputError),
    "a number for documents": (lambda i: i.score(MODEL, "q", 5), InvalidInputError),
    "a number for a query": (lambda i: i.score(MODEL, 3, ["d"]), InvalidInputError),
    "a query that is no Unicode": (lambda i: i.score(MODEL, "\ud800", ["d"]), InvalidInputError),
    "no best at all": (lambda i: i.score(MODEL, "q", ["d"], top_k=0), InvalidInputError),
    "an option of another model": (lambda i: i.score(MODEL, "q", ["d"], options={"lora": "x"}), InvalidInputError),
    "an instruction": (lambda i: i.score(MODEL, "q", ["d"], options={"instruction": "x"}), InvalidInputError),
    "another scoring": (
        lambda i: i.score(MODEL, "q", ["d"], options={"scoring": "cross-encoder"}),
        UnsupportedOperationError,
    ),
    "no model": (lambda i: i.encode("", "x"), InvalidInputError),
    "a number for a model": (lambda i: i.encode(7, "x"), InvalidInputError),
    "an unknown model": (lambda i: i.encode("no-such/model", "x", timeout_s=30), ModelNotFoundError),
    "an unknown model loaded": (lambda i: i.load("no-such/model"), ModelNotFoundError),
    "an unknown keyword": (lambda i: i.encode(MODEL, "x", temperature=1), TypeError),
    "ids where words are needed": (
        lambda i: i.encode("bm25", ["a", Item(input_ids=[1])], output_types=["sparse"]),
        InvalidInputError,
    ),
    "a bad item far down": (
        lambda i: i.encode(MODEL, ["x"] * 2000 + ["word " * 900], truncate="none", timeout_s=60),
        InvalidInputError,
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_exceptions_are_the_same(engine, inference, case):
    call, kind = ERRORS[case]
    expected = raised(lambda: call(engine))
    assert expected[0] is kind
    found = raised(lambda: call(inference))
    assert found[0] is kind and (found == expected or kind is TypeError)


def test_a_bad_item_is_named_by_its_place_in_the_whole_call(inference):
    with pytest.raises(InvalidInputError, match=r"\Aitem 2000 "):
        ERRORS["a bad item far down"][0](inference)


def test_a_deadline_ends_the_wait(inference):
    with pytest.raises(DeadlineExceededError, match=r"timeout_s=0\.05 ran out with [\d,]+ of 20,000 items done"):
        inference.encode(MODEL, TEXTS * 4000, timeout_s=0.05)
    assert inference.encode(MODEL, "x", timeout_s=30)["dense"].shape == (32,)


def test_an_exception_in_progress_ends_the_call(inference):
    def stop(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inference.encode(MODEL, TEXTS * 800, progress=stop)
    assert inference.encode(MODEL, "x", timeout_s=30)["dense"].shape == (32,)


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_are_described_alike(engine, inference):
    found = {info.id: info for info in inference.models()}[MODEL]
    known = {info.id: info for info in engine.models()}[MODEL]
    changing = ("hits", "last_used_s", "load_ms", "loads")
    assert_same(found, known, but=changing)
    assert found.load_ms > 0 and found.loads >= 1 and found.last_used_s >= 0


def test_models_are_pinned_loaded_and_dropped(inference):
    assert inference.pin(MODEL).pinned and inference.pin(MODEL, True).state == "resident"
    assert not inference.pin(MODEL, False, timeout_s=30).pinned
    while not inference.unload(MODEL):
        pass
    assert {info.id: info.state for info in inference.models()}[MODEL] == "available"
    assert inference.unload("never/seen")
    info = inference.load(MODEL, timeout_s=30)
    assert (info.state, info.resident_bytes) == ("resident", info.size_bytes)


def test_after_the_end_there_is_an_error(cache):
    engine = Engine(device="cpu", precision="float32", cache_dir=cache)
    client = Client("http://localhost:9")
    for inference in (engine, client):
        inference.close()
        inference.close()
        with pytest.raises(EngineClosedError):
            inference.encode(MODEL, "x")
        with pytest.raises(EngineClosedError):
            inference.encode(MODEL, TEXTS * 1000)
