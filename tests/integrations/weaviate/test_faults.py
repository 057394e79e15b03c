"""Imports that end in the middle, and servers that go away: nothing is lost, nothing is there twice, nothing is old."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from support.weaviate_hashing import Hashing, vector
from support.weaviate_store import Store
from support.weaviate_stub import weaviate_stub
from tercet import TransportError, VectorSpec
from tercet.ingest import document_id
from tercet_weaviate import ensure_collection, import_objects

pytestmark = pytest.mark.slow

SPEC = VectorSpec(dense="hashed")
COUNT, CHANGED = 20_000, 3_000
TESTS = Path(__file__).parents[2]
IMPORT = textwrap.dedent("""
    import sys
    sys.path.insert(0, sys.argv[3])
    import weaviate
    from support.weaviate_hashing import Hashing
    from tercet import VectorSpec
    from tercet_weaviate import import_objects

    documents = [{"path": f"/{i}", "text": f"text of document {i}"} for i in range(int(sys.argv[4]))]
    with weaviate.connect_to_local("127.0.0.1", int(sys.argv[1]), int(sys.argv[2]), skip_init_checks=True) as client:
        docs = client.collections.use("Docs")
        import_objects(docs, documents, VectorSpec(dense="hashed"), Hashing(), key="path", batch_size=500)
""")


def documents(word="text"):
    return [{"path": f"/{i}", "text": f"{word} of document {i}"} for i in range(COUNT)]


def require_complete(objects, count=COUNT):
    """Raise unless every document is there once, with the vector of its text."""
    assert objects.keys() == {document_id(f"/{i}") for i in range(count)}
    for i in range(count):
        stored = objects[document_id(f"/{i}")]
        assert stored.properties["text"] == f"text of document {i}"
        np.testing.assert_array_equal(stored.vectors["dense"], vector("hashed", stored.properties["text"]))


def test_an_import_killed_in_the_middle_goes_on(tmp_path):
    file = tmp_path / "weaviate.log"
    with weaviate_stub(file) as stub, stub.connect() as client:
        docs = ensure_collection(client, "Docs", SPEC, Hashing())
        import_objects(docs, documents("old text")[:CHANGED], SPEC, Hashing(), key="path")
        command = [sys.executable, "-c", IMPORT, str(stub.http_port), str(stub.grpc_port), str(TESTS), str(COUNT)]
        process = subprocess.Popen(command)
        before = len(stub.faults.batches)
        while len(stub.faults.batches) < before + 14:
            assert process.poll() is None and not time.sleep(0.005)
        process.kill()
        assert process.wait() == -9
        there = sum(each.properties["text"].startswith("text") for each in list(stub.objects("Docs").values()))
        assert 2_000 < there < COUNT, "killed in the middle"
        inference = Hashing()
        report = import_objects(docs, documents(), SPEC, inference, key="path")
        assert report.failed == () and report.written + report.unchanged == COUNT
        assert report.written == inference.encoded
        assert COUNT - there - 500 <= report.written <= COUNT - there, "a request may have been on its way"
        require_complete(stub.objects("Docs"))
    written = Store(file)
    written.close()
    require_complete(written.classes["Docs"].objects)


def test_a_server_that_goes_away_for_ten_seconds_loses_nothing(tmp_path):
    count = 3_000
    with weaviate_stub(tmp_path / "weaviate.log") as stub, stub.connect() as client:
        docs = ensure_collection(client, "Docs", SPEC, Hashing())
        enough, away = threading.Event(), []

        def absence():
            assert enough.wait(60)
            stub.stop()
            away.append(len(stub.objects("Docs")))
            time.sleep(10)
            stub.start()

        thread = threading.Thread(target=absence)
        thread.start()
        progress = lambda done, total: enough.set() if done >= 1_000 else None  # noqa: E731
        report = import_objects(
            docs, documents()[:count], SPEC, Hashing(), key="path", batch_size=100, progress=progress
        )
        thread.join()
        assert report.failed == () and report.written == count
        assert 1_000 <= away[0] < count, "it went away in the middle"
        require_complete(stub.objects("Docs"), count)


def test_a_server_that_stays_away_is_told_of_and_the_import_goes_on_later():
    with weaviate_stub() as stub, stub.connect() as client:
        docs = ensure_collection(client, "Docs", SPEC, Hashing())
        stub.faults.refuse_batch = lambda request: (
            (grpc.StatusCode.UNAVAILABLE, "going down") if len(stub.faults.batches) > 3 else None
        )
        with pytest.raises(TransportError, match=r"could not be reached .*going down.* run the same import again"):
            import_objects(docs, documents()[:1000], SPEC, Hashing(), key="path", batch_size=100, patience_s=0)
        assert len(stub.objects("Docs")) == 300
        stub.faults.refuse_batch = lambda request: None
        report = import_objects(docs, documents()[:1000], SPEC, Hashing(), key="path", batch_size=100)
        assert (report.written, report.unchanged) == (700, 300)
        require_complete(stub.objects("Docs"), 1000)
