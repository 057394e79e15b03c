"""Imports: what is stored, what is left alone, and what happens to objects and requests that Weaviate refuses."""

import threading

import grpc
import numpy as np
import pytest

from support.weaviate_cases import SPEC, TEXTS
from support.weaviate_hashing import Hashing, vector
from tercet import InvalidInputError, TercetError, TransportError, UnsupportedOperationError, VectorSpec
from tercet.ingest import document_id
from tercet_weaviate import ensure_collection, import_objects
from tercet_weaviate.objects import data_object, record, requests

HASHED = VectorSpec(dense="hashed")
NUMBERED = [f"text number {i}" for i in range(10)]


@pytest.fixture
def hashing():
    return Hashing()


@pytest.fixture
def docs(client, hashing):
    return ensure_collection(client, "Docs", HASHED, hashing)


def stored_texts(stub):
    return sorted(each.properties["text"] for each in stub.objects("Docs").values())


# ── what is stored ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_objects_hold_the_engines_vectors_and_every_property(client, stub, engine):
    docs = ensure_collection(client, "Docs", SPEC, engine)
    documents = [{"text": text, "place": float(i), "kinds": ["a", "b"]} for i, text in enumerate(TEXTS)]
    seen = []
    report = import_objects(docs, documents, SPEC, engine, progress=lambda *counts: seen.append(counts), batch_size=3)
    assert (report.written, report.unchanged, report.failed) == (len(TEXTS), 0, ())
    assert seen == [(3, 7), (6, 7), (7, 7)]
    dense = [engine.encode("tiny/bert", TEXTS[i : i + 3]).dense for i in (0, 3, 6)]
    tokens = engine.encode("tiny/m3", TEXTS, output_types=["multivector"]).multivector
    for i, document in enumerate(documents):
        stored = stub.objects("Docs")[document_id(TEXTS[i])]
        assert {name: stored.properties[name] for name in document} == document
        np.testing.assert_array_equal(stored.vectors["dense"], np.concatenate(dense)[i])
        np.testing.assert_allclose(stored.vectors["multivector"], tokens[i], atol=1e-6)


def test_a_text_without_tokens_gets_one_zero_vector():
    fingerprint = HASHED.fingerprint(Hashing())
    made = data_object(record("a", "text", None, fingerprint), {"multivector": np.empty((0, 3), np.float32)})
    assert made.vector == {"multivector": [[0.0, 0.0, 0.0]]}


def test_requests_are_cut_by_their_size(docs, stub, hashing):
    import_objects(docs, NUMBERED, HASHED, hashing, request_bytes=400)
    assert len(stub.faults.batches) > 3 and sum(stub.faults.batches) == 10 and max(stub.faults.batches) <= 3
    assert stored_texts(stub) == sorted(NUMBERED)
    fingerprint = HASHED.fingerprint(hashing)
    large = [record("x" * 1000, "text", None, fingerprint), record("y", "text", None, fingerprint)]
    assert [len(each) for each in requests(large, {"dense": np.ones((2, 4))}, 100)] == [1, 1]


def test_a_generator_is_read_as_it_is_needed(docs, hashing):
    seen = []
    import_objects(docs, (text for text in NUMBERED), HASHED, hashing, batch_size=4, progress=lambda *n: seen.append(n))
    assert seen == [(4, 4), (8, 8), (10, 10)]
    assert import_objects(docs, [], HASHED, hashing).written == 0


def test_the_next_batch_is_encoded_while_one_is_sent(docs, stub):
    encoding = threading.Event()

    class Noted(Hashing):
        def encode(self, *arguments, **choices):
            if self.encoded:
                encoding.set()
            return super().encode(*arguments, **choices)

    overlapped = []

    def wait(request):
        if not overlapped:
            overlapped.append(encoding.wait(20))

    stub.faults.refuse_batch = wait
    import_objects(docs, NUMBERED, HASHED, Noted(), batch_size=5)
    assert overlapped == [True]


# ── what is left alone ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_encodes_nothing(docs, stub, hashing):
    import_objects(docs, NUMBERED, HASHED, hashing)
    assert hashing.encoded == 10
    stub.faults.batches.clear()
    report = import_objects(docs, [*NUMBERED, "one more"], HASHED, hashing)
    assert (report.written, report.unchanged) == (1, 10) and hashing.encoded == 11 and stub.faults.batches == [1]


def test_a_text_that_changed_under_its_key_is_replaced(docs, stub, hashing):
    documents = [{"path": f"/{i}", "text": text, "year": "1999"} for i, text in enumerate(NUMBERED)]
    import_objects(docs, documents, HASHED, hashing, key="path")
    documents[3] |= {"text": "another"}
    documents[4] |= {"year": "2000"}
    report = import_objects(docs, documents, HASHED, hashing, key="path")
    assert (report.written, report.unchanged) == (2, 8) and len(docs) == 10
    stored = stub.objects("Docs")
    assert stored[document_id("/4")].properties["year"] == "2000"
    np.testing.assert_array_equal(stored[document_id("/3")].vectors["dense"], vector("hashed", "another"))


def test_of_a_document_that_comes_twice_the_last_is_kept(docs, stub, hashing):
    documents = [{"path": "/a", "text": text} for text in NUMBERED]
    report = import_objects(docs, documents, HASHED, hashing, key="path", batch_size=4)
    assert (report.written, report.unchanged) == (3, 7)
    assert stored_texts(stub) == [NUMBERED[-1]]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refused_object_is_tried_alone_and_reported(docs, stub, hashing):
    red = document_id(NUMBERED[2])
    stub.faults.refuse = lambda message: "too red" if message.uuid == red else None
    report = import_objects(docs, NUMBERED, HASHED, hashing)
    assert stub.faults.batches == [10, 1, 1]
    (failure,) = report.failed
    assert (failure.uuid, failure.properties["text"]) == (red, NUMBERED[2])
    assert "too red" in failure.message
    assert report.written == 9 and stored_texts(stub) == sorted(set(NUMBERED) - {NUMBERED[2]})
    stub.faults.refuse = lambda message: None
    again = import_objects(docs, NUMBERED, HASHED, hashing)
    assert (again.written, again.unchanged, again.failed) == (1, 9, ())


def test_an_object_that_was_refused_in_passing_is_stored(docs, stub, hashing):
    seen = []

    def once(message):
        seen.append(message.uuid)
        return "busy" if seen.count(message.uuid) == 1 and len(seen) > 5 else None

    stub.faults.refuse = once
    report = import_objects(docs, NUMBERED, HASHED, hashing)
    assert (report.written, report.failed) == (10, ()) and stub.faults.batches == [10, 1, 1, 1, 1, 1]


def test_a_batch_of_which_every_object_is_refused_at_first(docs, stub, hashing):
    stub.faults.refuse = lambda message: "busy" if len(stub.faults.batches) == 1 else None
    assert import_objects(docs, NUMBERED, HASHED, hashing).written == 10


def test_what_the_schema_does_not_take_is_told_in_weaviates_words(docs, stub, hashing):
    documents = [{"text": "right", "year": "1999"}, {"text": "wrong", "year": 1999}]
    report = import_objects(docs, documents, HASHED, hashing)
    assert report.written == 1 and "not a text, but number" in report.failed[0].message


def test_a_request_refused_as_a_whole_is_sent_in_parts(docs, stub, hashing):
    def too_many(request):
        return (grpc.StatusCode.RESOURCE_EXHAUSTED, "too large") if len(request.objects) > 3 else None

    stub.faults.refuse_batch = too_many
    assert import_objects(docs, NUMBERED, HASHED, hashing).written == 10
    assert stub.faults.batches == [10, 5, 2, 3, 5, 2, 3] and stored_texts(stub) == sorted(NUMBERED)


def test_an_object_that_no_request_may_hold_fails_alone(docs, stub, hashing):
    def poisoned(request):
        texts = [each.properties.non_ref_properties["text"] for each in request.objects]
        return (grpc.StatusCode.INTERNAL, "it fell over") if NUMBERED[7] in texts else None

    stub.faults.refuse_batch = poisoned
    report = import_objects(docs, NUMBERED, HASHED, hashing)
    assert report.written == 9 and [each.properties["text"] for each in report.failed] == [NUMBERED[7]]
    assert "it fell over" in report.failed[0].message


def test_it_stops_when_too_much_is_refused(docs, stub, hashing):
    stub.faults.refuse = lambda message: "disk is full"
    texts = [f"{i}" for i in range(500)]
    with pytest.raises(TercetError, match=r"more than 5 objects, the last with: .*disk is full.* run the same import"):
        import_objects(docs, texts, HASHED, hashing, max_failures=5, batch_size=50)
    assert len(stub.faults.batches) <= 7 and threading.active_count() < 50
    assert [each for each in threading.enumerate() if each.name == "tercet-ahead"] == []


def test_an_absent_server_is_told_of_at_once_if_nobody_waits(docs, stub, hashing):
    stub.stop()
    try:
        with pytest.raises(TransportError, match=r"could not be reached .* run the same import again"):
            import_objects(docs, NUMBERED, HASHED, hashing, patience_s=0)
    finally:
        stub.start()


@pytest.mark.parametrize(
    ("documents", "choices", "message"),
    [
        ([{"body": "a"}], {}, "no text in 'text'; it has body"),
        ([{"text": None}], {}, "no text in 'text'"),
        ([{"text": "a", "tercet_digest": "b"}], {}, "'tercet_digest' is written by import_objects"),
        (["a"], {"key": "path"}, "no 'path', its key; it has text"),
        (["a"], {"batch_size": 0}, "batch_size=0"),
        (["a"], {"request_bytes": 0}, "request_bytes=0"),
    ],
)
def test_wrong_documents_and_arguments_are_explained(docs, hashing, documents, choices, message):
    with pytest.raises(InvalidInputError, match=message):
        import_objects(docs, documents, HASHED, hashing, **choices)
    assert len(docs) == 0


def test_sparse_vectors_are_refused(docs, hashing):
    with pytest.raises(UnsupportedOperationError, match="leave `sparse` out"):
        import_objects(docs, NUMBERED, VectorSpec(dense="hashed", sparse="bm25"), hashing)
