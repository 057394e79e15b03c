"""Uploads: what is stored, what is skipped, and that nothing is lost on the way."""

import uuid
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_client")

from qdrant_client import QdrantClient

from support.qdrant_stores import Watched, client_of, texts
from tercet import InvalidInputError, VectorSpec
from tercet.ingest import document_id
from tercet_qdrant import SourceDocument, UploadReport, ensure_collection, point_id, upload

TEXTS = texts(30)


@pytest.fixture(scope="module")
def spec(m3):
    return VectorSpec(dense=m3, sparse="bm25", multivector=m3)


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


def stored(client, name="docs"):
    records, _ = client.scroll(name, limit=10_000, with_vectors=True)
    return {record.id: record for record in records}


@pytest.mark.parametrize("kind", [":memory:", "server"])
def test_vectors_are_stored_as_the_engine_makes_them(kind, engine, spec, tmp_path):
    given = [{"id": i, "text": text, "payload": {"n": i}} for i, text in enumerate(TEXTS)]
    with client_of(kind, tmp_path) as client:
        ensure_collection(client, "docs", spec, inference=engine)
        report = upload(client, "docs", iter(given), spec, inference=engine, batch_size=7)
        assert report == UploadReport(uploaded=30) and report.documents == 30
        records = client.retrieve("docs", list(range(30)), with_vectors=True)
    columns = spec.encode(engine, TEXTS)
    for record in records:
        i = record.id
        np.testing.assert_allclose(record.vector["dense"], columns["dense"][i], atol=1e-6)
        np.testing.assert_allclose(record.vector["multivector"], columns["multivector"][i], atol=1e-6)
        assert record.vector["sparse"].indices == columns["sparse"][i].indices.tolist()
        np.testing.assert_allclose(record.vector["sparse"].values, columns["sparse"][i].values, rtol=1e-6)
        assert record.payload["n"] == i and record.payload["text"] == TEXTS[i]


def test_documents_come_in_many_forms_and_ids_stay_the_same(client, engine, spec):
    ensure_collection(client, "docs", spec, inference=engine)
    name = uuid.uuid4()
    given = [
        SourceDocument("a fox", "chapter 1", {"page": 3}),
        {"text": "a dog", "id": 7},
        SimpleNamespace(text="hello", id=name, payload=None),
        {"text": "world", "id": "第一章"},
        SourceDocument("brown"),
    ]
    assert upload(client, "docs", given, spec, inference=engine).uploaded == 5
    found = stored(client)
    named = found[document_id("chapter 1")]
    assert named.payload["_tercet"]["id"] == "chapter 1" and named.payload["page"] == 3
    assert "id" not in found[7].payload["_tercet"] and found[str(name)].payload["text"] == "hello"
    assert found[document_id("brown")].payload["text"] == "brown"
    assert upload(client, "docs", given, spec, inference=engine) == UploadReport(unchanged=5)


def test_ids_of_points():
    name = uuid.uuid4()
    assert point_id(5) == 5 and point_id(name) == point_id(str(name)) == point_id(str(name).upper()) == str(name)
    assert point_id("5") == document_id("5") != point_id("6")
    for wrong in (-1, 2**64, True, 1.5, b"x"):
        with pytest.raises(InvalidInputError, match="give a whole number from 0 to"):
            point_id(wrong)


def test_what_is_stored_is_not_encoded_again_and_what_has_changed_is_replaced_whole(client, engine, spec):
    ensure_collection(client, "docs", spec, inference=engine)
    given = [{"id": f"d{i}", "text": text, "payload": {"n": i}} for i, text in enumerate(TEXTS)]
    upload(client, "docs", given, spec, inference=engine)
    given[3] = {"id": "d3", "text": "numbers and words"}
    given[4] = {**given[4], "payload": {"n": 400}}
    given.append({"id": "new", "text": "tabs"})
    before, counted = stored(client), Watched(engine)
    report = upload(client, "docs", given, spec, inference=counted)
    assert report == UploadReport(uploaded=2, payloads=1, unchanged=28)
    assert set(counted.texts) == {"numbers and words", "tabs"}
    after, replaced, moved = stored(client), document_id("d3"), document_id("d4")
    expected = spec.encode(engine, ["numbers and words"])["dense"][0]
    np.testing.assert_allclose(after[replaced].vector["dense"], expected, atol=1e-6)
    assert "n" not in after[replaced].payload, "nothing of the old document stays"
    assert after[moved].payload["n"] == 400 and after[moved].vector == before[moved].vector
    assert upload(client, "docs", given, spec, inference=engine) == UploadReport(unchanged=31)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_of_documents_with_one_id_the_last_stays(batch_size, client, engine, spec):
    """However far apart: one that was looked up while another is on its way is not taken for stored."""
    ensure_collection(client, "docs", spec, inference=engine)
    upload(client, "docs", [{"id": 1, "text": "the last"}], spec, inference=engine)
    given = [{"id": 1, "text": "fox"}, {"id": 2, "text": "dog"}, {"id": 1, "text": "the last"}]
    report = upload(client, "docs", given, spec, inference=engine, batch_size=batch_size)
    found = stored(client)
    assert found[1].payload["text"] == "the last" and len(found) == 2 and report.documents == 3
    expected = spec.encode(engine, ["the last"])["dense"][0]
    np.testing.assert_allclose(found[1].vector["dense"], expected, atol=1e-6)


def test_texts_without_a_token_are_stored_too(client, engine, spec):
    ensure_collection(client, "docs", spec, inference=engine)
    upload(client, "docs", [{"id": 1, "text": ""}, {"id": 2, "text": "of the"}], spec, inference=engine)
    found = stored(client)
    assert all(len(found[i].vector["multivector"]) >= 1 and found[i].vector["sparse"].indices == [] for i in (1, 2))


def test_progress_counts_what_is_done(client, engine, spec):
    ensure_collection(client, "docs", spec, inference=engine)
    given, told = [{"id": i, "text": text} for i, text in enumerate(TEXTS)], []
    upload(client, "docs", given, spec, inference=engine, batch_size=12, progress=lambda *done: told.append(done))
    upload(client, "docs", iter(given), spec, inference=engine, progress=lambda *done: told.append(done))
    assert told == [(12, 30), (24, 30), (30, 30), (30, 0)]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": 1}, "document 1 has the text None; give a string"),
        ({"id": 1, "text": "x", "title": "y"}, "a document has 'title'; it may have id, text, payload"),
        ({"id": -1, "text": "x"}, "id -1: give a whole number"),
        ({"id": 1, "text": "x", "payload": [1]}, "its payload is list; give a mapping"),
        ({"id": 1, "text": "x", "payload": {"v": float("nan")}}, "its payload is no JSON"),
        ({"id": 1, "text": "x", "payload": {"v": object()}}, "its payload is no JSON"),
        ({"id": 1, "text": "x", "payload": {"_tercet": 1}}, "its payload may not have '_tercet'"),
        ({"id": 1, "text": "x", "payload": {"text": "y"}}, "nor another text in 'text'"),
        ("a text", "document None has the text None"),
    ],
)
def test_a_wrong_document_says_what_to_do(document, message, client, engine, spec):
    ensure_collection(client, "docs", spec, inference=engine)
    with pytest.raises(InvalidInputError, match=message):
        upload(client, "docs", [{"id": 5, "text": "dog"}, document], spec, inference=engine, batch_size=1)
    assert set(stored(client)) <= {5}


def test_a_source_that_fails_does_not_lose_what_came_before(client, engine, spec):
    ensure_collection(client, "docs", spec, inference=engine)

    def source():
        yield from ({"id": i, "text": text} for i, text in enumerate(TEXTS[:10]))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        upload(client, "docs", source(), spec, inference=engine, batch_size=5)
    assert set(stored(client)) == set(range(10))
