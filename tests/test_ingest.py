"""Batches made ahead of their use, and the marks that a load resumes by."""

import threading

import pytest

from tercet.ingest import ahead, batched, digest, document_id

FINGERPRINT = {"dense": {"model": "a/b", "revision": "1", "fingerprint": "f", "dimensions": None}}


def test_batches_hold_everything_once_in_order():
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []


@pytest.mark.parametrize("depth", [1, 4])
def test_items_come_in_order_and_each_once(depth):
    assert list(ahead((n * n for n in range(50)), depth)) == [n * n for n in range(50)]


def test_the_next_item_is_made_while_the_caller_is_busy():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    made = ahead(items())
    assert next(made) == 1
    assert second.wait(10), "nothing was made ahead"
    assert list(made) == [2]


def test_no_more_is_made_ahead_than_asked_for():
    made = []

    def items():
        for n in range(100):
            made.append(n)
            yield n

    stream = ahead(items(), depth=2)
    next(stream)
    threading.Event().wait(0.3)
    assert len(made) <= 4, "one is used, two wait, one is in hand"
    stream.close()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("bad source")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="bad source"):
        next(stream)


def test_a_caller_that_stops_early_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    stream = ahead(items())
    next(stream)
    stream.close()
    assert closed.is_set() and not [t for t in threading.enumerate() if t.name == "tercet-ahead"]


def test_ids_and_marks_depend_on_what_they_should():
    assert document_id("a") == document_id("a") != document_id("b")
    mark = digest("text", FINGERPRINT)
    renamed = {"dense": {**FINGERPRINT["dense"], "model": "other/name", "revision": None}}
    assert digest("text", renamed) == mark, "the same model under another name makes the same vectors"
    changed = {"dense": {**FINGERPRINT["dense"], "fingerprint": "g"}}
    assert len({mark, digest("text", changed), digest("other", FINGERPRINT)}) == 3
