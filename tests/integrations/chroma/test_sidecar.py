"""The sidecar alone: exact search, writes that are whole or not at all, one writer at a time."""

import threading

import numpy as np
import pytest

from tercet.fusion import sparse_dot
from tercet.types import MultiVectorBatch, SparseBatch, SparseVector
from tercet_chroma.sidecar import Sidecar, erase

RNG = np.random.default_rng(7)


def vector(*terms, values=None):
    indices = np.array(sorted(terms), np.uint32)
    return SparseVector(indices, np.ones(len(terms), np.float32) if values is None else np.float32(values))


def random_batch(n, terms=60):
    rows = []
    for _ in range(n):
        indices = np.unique(RNG.integers(0, terms, RNG.integers(1, 20))).astype(np.uint32) + np.uint32(
            2**32 - terms - 1
        )
        rows.append(SparseVector(indices, RNG.random(len(indices)).astype(np.float32) + 0.01))
    return SparseBatch.from_rows(rows, 2**32)


def marks(n, first=0):
    return {f"d{i}": f"m{i}" for i in range(first, first + n)}


@pytest.fixture(params=["memory", "file"])
def sidecar(request, tmp_path):
    sidecar = Sidecar(None if request.param == "memory" else tmp_path / "folder" / "side.sqlite3")
    yield sidecar
    sidecar.close()


@pytest.mark.parametrize("idf", [False, True])
def test_a_search_is_the_dot_product(sidecar, idf):
    batch = random_batch(80)
    sidecar.put(marks(80), {"sparse": batch})
    for query in random_batch(5):
        terms, holding = np.unique(batch.indices, return_counts=True)
        df = np.array([dict(zip(terms, holding, strict=True)).get(term, 0) for term in query.indices])
        weights = query.values * (np.log1p((80 - df + 0.5) / (df + 0.5)) if idf else 1)
        scores = sparse_dot(SparseVector(query.indices, np.float32(weights)), batch)
        found = list(sidecar.search(query, 10, idf=idf))
        np.testing.assert_allclose([scores[int(key[1:])] for key in found], np.sort(scores)[::-1][:10], rtol=1e-5)
        only = [f"d{i}" for i in range(0, 80, 7)]
        among = list(sidecar.search(query, 5, only, idf=idf))
        best = sorted((key for key in only if scores[int(key[1:])] > 0), key=lambda key: -scores[int(key[1:])])
        assert among == best[:5]


def test_what_shares_no_term_is_not_found(sidecar):
    sidecar.put(marks(2), {"sparse": SparseBatch.from_rows([vector(1, 2), vector()], 2**32)})
    assert list(sidecar.search(vector(3), 10)) == [] == list(sidecar.search(vector(), 10))
    assert list(sidecar.search(vector(2, 3), 10)) == ["d0"] and list(sidecar.search(vector(1), 10, [])) == []


def test_what_is_replaced_or_removed_leaves_nothing(sidecar):
    sidecar.put(marks(2), {"sparse": SparseBatch.from_rows([vector(1, 2), vector(2)], 2**32)})
    sidecar.put({"d0": "other"}, {"sparse": SparseBatch.from_rows([vector(9)], 2**32)})
    assert list(sidecar.search(vector(2), 10)) == ["d1"] and list(sidecar.search(vector(9), 10)) == ["d0"]
    assert sidecar.marks() == {"d0": "other", "d1": "m1"} and sidecar.marks(["d1", "none"]) == {"d1": "m1"}
    sidecar.remove(["d0", "none"])
    assert len(sidecar) == 1 and list(sidecar.search(vector(9, 2), 10)) == ["d1"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_token_vectors_come_back_as_they_were(sidecar, dtype):
    rows = [RNG.random((n, 4)).astype(dtype) for n in (3, 1)]
    batch = MultiVectorBatch(np.concatenate(rows), np.array([0, 3, 4]))
    sidecar.put({"a": "x", "b": "y", "none": ""}, {"multivector": batch})
    found = sidecar.matrices(["b", "none", "a", "missing"], 4)
    assert found.values.dtype == np.float32 and [len(row) for row in found] == [1, 0, 3, 0]
    np.testing.assert_array_equal(found[2], rows[0].astype(np.float32))


def test_a_file_keeps_what_was_noted_and_stored(tmp_path):
    path = tmp_path / "side.sqlite3"
    first = Sidecar(path)
    first.set_fingerprint({"sparse": {"model": "bm25"}})
    first.intend(["d0", "d1", "d5"])
    first.put(marks(1), {"sparse": SparseBatch.from_rows([vector(1)], 2**32)}, settled=["d5"])
    second = Sidecar(path)  # while the first is open, as after a crash
    assert second.fingerprint() == {"sparse": {"model": "bm25"}} and second.pending() == ["d1"]
    assert list(second.search(vector(1), 1)) == ["d0"]
    second.remove(["d1"])
    assert first.pending() == []
    first.clear()
    assert len(second) == 0 and second.fingerprint() is None
    first.close()
    second.close()
    erase(path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_changes_nothing(sidecar):
    sidecar.put(marks(1), {"sparse": SparseBatch.from_rows([vector(1)], 2**32)})
    sidecar.intend(["d0"])
    with pytest.raises(IndexError):
        sidecar.put({"d0": "new", "d1": "new"}, {"sparse": SparseBatch.from_rows([vector(2)], 2**32)})
    assert (
        sidecar.marks() == {"d0": "m0"} and sidecar.pending() == ["d0"] and list(sidecar.search(vector(1), 1)) == ["d0"]
    )


def test_one_writes_at_a_time_and_the_others_wait_or_go_on(tmp_path):
    one, two = Sidecar(tmp_path / "side.sqlite3"), Sidecar(tmp_path / "side.sqlite3")
    order, waiting = [], threading.Event()

    def late():
        waiting.set()
        with two.writer() as alone:
            order.append(("second", alone))

    with one.writer() as alone:
        assert alone
        for other in (one, two):
            with other.writer(wait=False) as busy:
                assert not busy
        thread = threading.Thread(target=late)
        thread.start()
        waiting.wait()
        order.append(("first", alone))
    thread.join()
    assert order == [("first", True), ("second", True)]
    with one.writer(wait=False) as alone:
        assert alone
    one.close()
    two.close()
