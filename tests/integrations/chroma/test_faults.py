"""What breaks off is finished later: processes killed anywhere, servers that go away."""

import threading
import time

import numpy as np
import pytest

import tercet_chroma.patience
from support import chroma_ingest
from support.chroma_ingest import fill, ids, ingest, opened, texts
from support.chroma_server import chroma_server
from tercet import Client, TransportError, VectorSpec
from tercet_chroma import HybridCollection, TercetEmbeddingFunction, add_batched

KILLED = -9


def check_whole(collection, url, count, edition):
    """Assert that every document is there once, with the vector of its present text."""
    found = collection.get(include=["documents"])
    assert sorted(found["ids"]) == sorted(ids(count)) and collection.count() == count
    expected = dict(zip(ids(count), texts(count, edition), strict=True))
    assert dict(zip(found["ids"], found["documents"], strict=True)) == expected
    some = [f"d{i}" for i in range(count) if i % 100 == 0 or i % 61 == 0]  # all that an edition changes, and more
    with Client(url) as client:
        vectors = client.encode(chroma_ingest.MODEL, [expected[key] for key in some]).dense
    stored = collection.get(ids=some, include=["embeddings"])
    places = [stored["ids"].index(key) for key in some]
    np.testing.assert_allclose(stored["embeddings"][places], vectors, rtol=1e-5, atol=1e-6)


def check_sidecar(collection, count, edition):
    mirror = collection._mirror
    expected = {key: mirror._mark(text) for key, text in zip(ids(count), texts(count, edition), strict=True)}
    assert mirror._sidecar.marks() == expected and mirror._sidecar.pending() == []


def finished(process):
    process.communicate(timeout=200)
    return process.returncode


def killed_at(process, documents):
    """Kill a process once it has done so many."""
    with process.stdout:
        for line in process.stdout:
            if int(line) >= documents:
                process.kill()
                break
    assert process.wait() == KILLED


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("upsert", 20_000), ("batched", 5_000)])
def test_an_ingest_killed_in_the_middle_is_finished_by_running_it_again(live, tmp_path, kind, count):
    killed_at(ingest(tmp_path, live, kind, count), count // 3)
    client, collection = opened(tmp_path, live, kind)
    before = collection.count()
    assert count // 3 <= before < count
    edition, seen = 2, []
    fill(client, collection, kind, count, edition, lambda done, total: seen.append(done))
    assert seen[-1] == count
    check_whole(collection, live, count, edition)
    if kind == "upsert":
        check_sidecar(collection, count, edition)
        assert collection.query("number 12345", n_results=1, weights=[0, 1])["ids"] == [["d12345"]]
        collection.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fatal"), [("add", "add"), ("add", "put"), ("upsert", "upsert"), ("upsert", "put")])
def test_a_kill_before_or_after_chromas_write_leaves_both_in_step(live, tmp_path, kind, fatal):
    edition = 0
    if kind == "upsert":
        assert finished(ingest(tmp_path, live, kind, 200)) == 0
        edition = 3
    assert finished(ingest(tmp_path, live, kind, 200, edition, fatal)) == KILLED
    _, collection = opened(tmp_path, live, kind)
    held = 200 if kind == "upsert" or fatal == "put" else 0
    seen = edition if fatal == "put" else 0
    collection.query("number 7")
    check_sidecar(collection, held, seen)
    if held:
        check_whole(collection, live, held, seen)
        assert collection.query("number 100", n_results=1, weights=[0, 1])["ids"] == [["d100"]]
    collection.close()


@pytest.mark.slow
def test_a_chroma_server_that_goes_away_for_ten_seconds_loses_nothing(live, tmp_path):
    with chroma_server(tmp_path / "chroma") as server:
        collection = HybridCollection(
            server.client(), "docs", chroma_ingest.SPEC, live, sidecar=tmp_path / "side", batch_size=50
        )
        back = None

        def take_away(done, total):
            nonlocal back
            if done == 200:
                server.stop()
                back = threading.Timer(10, server.start)
                back.start()

        collection.add(ids(400), documents=texts(400, 0), progress=take_away)
        back.join()
        check_whole(collection, live, 400, 0)
        check_sidecar(collection, 400, 0)
        collection.close()


@pytest.mark.slow
def test_a_chroma_server_that_stays_away_is_told_and_running_again_resumes(live, tmp_path):
    with chroma_server(tmp_path / "chroma") as server:
        client = server.client()
        hybrid = HybridCollection(client, "hybrid", chroma_ingest.SPEC, live, batch_size=50, patience_s=0.5)
        plain = client.create_collection("plain", embedding_function=TercetEmbeddingFunction(chroma_ingest.MODEL, live))
        stop = lambda done, total: server.stop() if done == 200 else None  # noqa: E731
        for use in (
            lambda: hybrid.add(ids(300), documents=texts(300, 0), progress=stop),
            lambda: hybrid.query("number"),
            lambda: add_batched(client, plain, texts(300, 0), ids=ids(300), patience_s=0.5),
        ):
            started = time.monotonic()
            with pytest.raises(TransportError, match=r"did not answer for 0.5 s .*run the same call again"):
                use()
            assert time.monotonic() - started < 20, "it does not hang"
        server.start()
        hybrid.add(ids(300), documents=texts(300, 0))
        check_whole(hybrid, live, 300, 0)
        check_sidecar(hybrid, 300, 0)
        add_batched(client, plain, texts(300, 0), ids=ids(300))
        check_whole(plain, live, 300, 0)
        hybrid.close()


def test_patience_repeats_only_what_was_not_answered():
    calls = []

    def away_twice():
        calls.append(1)
        if len(calls) < 3:
            raise tercet_chroma.patience.httpx.ConnectError("refused")
        return "answer"

    patience = tercet_chroma.patience.Patience(5)
    assert patience(away_twice) == "answer" and len(calls) == 3

    def refused():
        calls.append(2)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        patience(refused)
    assert calls.count(2) == 1


def test_a_record_written_by_another_between_look_and_write_is_settled(ephemeral, name, engine, bert):
    """Its vectors are those of the text that Chroma kept."""
    collection = HybridCollection(ephemeral, name, VectorSpec(dense=bert, sparse="bm25"), engine)
    collection.count()
    real = collection._mirror._encode

    def slow(records):
        columns = real(records)
        collection.collection.add(ids=["a"], documents=["the first fox"])
        return columns

    collection._mirror._encode = slow
    collection.add(["a", "b"], documents=["a late hello", "numbers"])
    assert collection.get("a")["documents"] == ["the first fox"] and collection.count() == 2
    assert collection.query("fox", n_results=1)["ids"] == [["a"]]
    query = engine.encode("bm25", "hello", output_types=["sparse"], is_query=True)["sparse"]
    assert collection._mirror._sidecar.search(query, 5) == {}
    collection.close()
