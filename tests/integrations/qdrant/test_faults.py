"""A store that refuses, goes away, or is left in the middle: nothing is lost, and errors say what to do."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_client")

from qdrant_client import QdrantClient

from support.qdrant_server import qdrant_server
from support.qdrant_stores import many, texts
from support.servers import live_server
from tercet import Encoding, InvalidInputError, TransportError, VectorSpec
from tercet_qdrant import UploadReport, ensure_collection, hybrid_query, upload
from tercet_qdrant.documents import prepare

DOCUMENTS = [{"id": i, "text": text} for i, text in enumerate(texts(40))]


@pytest.fixture(scope="module")
def spec(bert):
    return VectorSpec(dense=bert, sparse="bm25")


@pytest.fixture
def server(engine, spec):
    with qdrant_server() as server:
        client = QdrantClient(**server.choices())
        ensure_collection(client, "docs", spec, inference=engine)
        client.close()
        yield server


@pytest.fixture
def client(server):
    client = QdrantClient(**server.choices())
    yield client
    client.close()


def test_what_the_store_refuses_is_named_and_all_else_is_stored(client, server, engine, spec):
    server.refuses = lambda points: "no room for it" if {3, 17} & {point.id for point in points} else None
    with pytest.raises(
        InvalidInputError, match=r"refused 2 of 40 documents, the others are stored\. 3: .*no room.*; 17: "
    ):
        upload(client, "docs", DOCUMENTS, spec, inference=engine, batch_size=16)
    assert client.count("docs").count == 38
    server.refuses = lambda points: None
    assert upload(client, "docs", DOCUMENTS, spec, inference=engine) == UploadReport(uploaded=2, unchanged=38)


def test_a_store_that_refuses_everything_is_not_asked_for_each_document(client, server, engine, spec):
    server.refuses = lambda points: "read-only"
    with pytest.raises(InvalidInputError, match=r"refused 11 documents; this is no matter of single ones.* read-only"):
        upload(client, "docs", DOCUMENTS, spec, inference=engine)
    assert server.asked["PUT /points"] < 30


def test_requests_are_cut_by_bytes_and_again_where_the_store_takes_less(client, server, engine, spec):
    upload(client, "docs", DOCUMENTS[:20], spec, inference=engine, max_request_bytes=20_000)
    assert len(server.seen) > 1 and all(size < 20_000 for _, size in server.seen)
    server.limit_bytes = 10_000
    upload(client, "docs", DOCUMENTS, spec, inference=engine)
    assert client.count("docs").count == 40 and all(size <= 10_000 for _, size in server.seen[-5:])


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_store_that_goes_away_and_returns_is_waited_for(seconds, client, server, engine, spec):
    waiting = []

    def away(done, total):
        if not waiting:
            waiting.append(server.go_away(seconds))

    report = upload(client, "docs", DOCUMENTS, spec, inference=engine, batch_size=8, progress=away)
    waiting[0].join()
    assert report == UploadReport(uploaded=40) and client.count("docs").count == 40


def test_a_store_that_stays_away_is_given_up_and_gone_on_with_later(client, server, engine, spec):
    def away(done, total):
        if done == 24:
            server.stop()

    started = time.monotonic()
    with pytest.raises(
        TransportError, match=r"has not answered for 1 s \(.*; what it had taken is stored\. Run this again"
    ):
        upload(client, "docs", DOCUMENTS, spec, inference=engine, batch_size=8, progress=away, patience_s=1)
    assert time.monotonic() - started < 30
    server.start()
    report = upload(client, "docs", DOCUMENTS, spec, inference=engine)
    assert report.unchanged >= 24 and report.documents == 40 and client.count("docs").count == 40


def test_a_store_that_is_not_there_is_an_error_of_transport(engine, spec):
    client = QdrantClient("http://127.0.0.1:9", check_compatibility=False)
    with pytest.raises(TransportError, match="has not answered for 0 s"):
        upload(client, "docs", DOCUMENTS, spec, inference=engine, patience_s=0)
    client.close()


_INGEST = """
import sys
sys.path[:0] = {paths!r}
from qdrant_client import QdrantClient
from support.qdrant_stores import many
from tercet import VectorSpec
from tercet_qdrant import upload

choices = {{"device": "cpu", "precision": "float32"}}
client = QdrantClient(**{choices!r})
spec = VectorSpec(dense={model!r}, sparse="bm25")
print("started", flush=True)
report = upload(
    client, "docs", many({count}), spec, connection=choices, progress=lambda done, total: print(done, flush=True)
)
print(report)
client.close()
"""


def ingest(model, choices, count, kill_at=None):
    """Run the ingest in a process of its own; kill it without warning once so many documents are done."""
    paths = [path for path in sys.path if path.endswith("tests")]
    code = _INGEST.format(paths=paths, choices=choices, model=model, count=count)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout:
            last = line.strip()
            if kill_at is not None and last.isdigit() and int(last) >= kill_at:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == (0 if kill_at is None else -signal.SIGKILL), last
    return last


def assert_complete(client, engine, spec, count):
    """Every document is stored once, with the vectors of the text that it has now."""
    fingerprint = spec.fingerprint(engine)
    wanted = {each.point: each for each in (prepare(document, fingerprint) for document in many(count))}
    records, _ = client.scroll("docs", limit=2 * count, with_vectors=False)
    assert len(records) == count and {record.id: record.payload for record in records} == {
        point: each.payload for point, each in wanted.items()
    }
    sample = list(wanted)[:: max(1, count // 500)] + list(wanted)[:100]
    columns = spec.encode(engine, [wanted[point].text for point in sample])
    found = {record.id: record.vector for record in client.retrieve("docs", sample, with_vectors=True)}
    for i, point in enumerate(sample):
        dense = np.array(found[point]["dense"])  # of length 1, except in local mode reopened from a disk
        cosine = dense @ columns["dense"][i] / np.linalg.norm(dense) / np.linalg.norm(columns["dense"][i])
        assert cosine == pytest.approx(1, abs=1e-6)
        assert found[point]["sparse"].indices == columns["sparse"][i].indices.tolist()


def stale(client, spec, engine, count):
    """Store other texts under the names of the first documents: vectors that must not stay."""
    ensure_collection(client, "docs", spec, inference=engine)
    old = [{**document, "text": f"old {document['id']}"} for document in many(count)]
    upload(client, "docs", old, spec, inference=engine)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_ingest_of_20000_killed_in_the_middle_is_completed_by_running_it_again(server, engine, spec, bert):
    store = server.store
    client = QdrantClient(**server.choices())
    stale(client, spec, engine, 100)
    client.close()
    ingest(bert, server.choices(), 20_000, kill_at=8_000)
    assert 8_000 <= store.count("docs").count < 20_000
    report = ingest(bert, server.choices(), 20_000)
    uploaded, unchanged = (int(n) for n in re.findall(r"(?:uploaded|unchanged)=(\d+)", report))
    assert uploaded + unchanged == 20_000 and unchanged >= 8_000
    assert_complete(store, engine, spec, 20_000)


@pytest.mark.slow
def test_a_store_on_disk_survives_a_kill_as_well(engine, spec, bert, tmp_path):
    path = str(tmp_path / "store")
    client = QdrantClient(path=path)
    stale(client, spec, engine, 50)
    client.close()
    ingest(bert, {"path": path}, 800, kill_at=200)
    ingest(bert, {"path": path}, 800)
    client = QdrantClient(path=path)
    assert_complete(client, engine, spec, 800)
    client.close()


@pytest.mark.slow
def test_a_live_server_gives_the_same_vectors_and_rankings_as_this_process(engine, tmp_path_factory):
    """Through the network to a Tercet server of its own process, with a model that both know by name."""
    model = "sentence-transformers/all-MiniLM-L6-v2"
    spec = VectorSpec(dense=Encoding(model, dimensions=128), sparse="bm25", multivector=model)
    with live_server({"device": "cpu", "precision": "float32"}) as live:
        kept = {}
        for where in (engine, live.url):
            client = QdrantClient(":memory:")
            ensure_collection(client, "docs", spec, inference=where)
            upload(client, "docs", DOCUMENTS, spec, inference=where)
            vectors = {record.id: record.vector for record in client.scroll("docs", limit=40, with_vectors=True)[0]}
            found = hybrid_query(client, "docs", "a lazy brown dog", spec, inference=where).points
            kept[where] = vectors, [point.id for point in found], client.get_collection("docs").config.metadata
            client.close()
    (here, ranked_here, metadata_here), (there, ranked_there, metadata_there) = kept.values()
    for point, vectors in here.items():
        np.testing.assert_allclose(vectors["dense"], there[point]["dense"], atol=1e-6)
        np.testing.assert_allclose(vectors["multivector"], there[point]["multivector"], atol=1e-6)
        assert vectors["sparse"] == there[point]["sparse"]
    assert ranked_here == ranked_there and len(ranked_here) == 10
    fingerprints = [
        {output: one["fingerprint"] for output, one in metadata["tercet"]["fingerprint"].items()}
        for metadata in (metadata_here, metadata_there)
    ]
    assert fingerprints[0] == fingerprints[1]
