"""What a batch is made of: budget, order, lengths, lanes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.engine.calls import Call
from tercet.engine.queue import BULK_HANDICAP_S, BatchKey, BatchQueue, Lane, Work, by_call
from tercet.nn.batch import TokenSequence

KEY = BatchKey("model", ("dense",))


class Nowhere:
    def put(self, indices, rows):
        raise AssertionError("nothing is delivered here")


def work(length, at=0.0, index=0, call=None):
    return Work(call or Call(1, Nowhere()), index, TokenSequence(np.ones(length, np.int64)), at)


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(lengths, st.integers(1, 100), st.integers(1, 4))
def test_batches_hold_every_work_once_and_keep_the_budget(sizes, budget, parts):
    queue = BatchQueue(budget)
    works = [work(n, float(i), i) for i, n in enumerate(sizes)]
    queue.put(KEY, works)
    assert queue.tokens == sum(sizes)
    taken = []
    while queue.keys():
        most = min(budget, -(-queue.tokens // parts))
        batch = queue.take(KEY, parts)
        assert sum(w.tokens for w in batch) <= most or len(batch) == 1
        assert [w.tokens for w in batch] == sorted(w.tokens for w in batch)
        taken += batch
    assert sorted(w.index for w in taken) == list(range(len(sizes)))
    assert queue.tokens == 0 and len(queue) == 0 and queue.waiting() == {}


@given(lengths, st.integers(1, 100))
def test_the_oldest_work_is_always_in_the_next_batch(sizes, budget):
    queue = BatchQueue(budget)
    queue.put(KEY, [work(n, float(i), i) for i, n in enumerate(sizes)])
    waiting = set(range(len(sizes)))
    while queue.keys():
        oldest = min(waiting)
        batch = {w.index for w in queue.take(KEY)}
        assert oldest in batch
        waiting -= batch


def test_near_lengths_travel_together():
    queue = BatchQueue(19)
    queue.put(KEY, [work(n) for n in (10, 1, 9, 1, 1)])
    assert [w.tokens for w in queue.take(KEY)] == [9, 10]
    assert [w.tokens for w in queue.take(KEY)] == [1, 1, 1]


def test_the_longest_that_fits_closes_the_gap():
    queue = BatchQueue(25)
    queue.put(KEY, [work(n) for n in (10, 11, 3, 30, 2, 4)])
    assert [w.tokens for w in queue.take(KEY)] == [4, 10, 11]
    assert [w.tokens for w in queue.take(KEY)] == [2, 3]
    assert [w.tokens for w in queue.take(KEY)] == [30]


def test_keys_are_served_oldest_first_and_queries_before_bulk_that_is_not_much_older():
    bulk, query, other = (BatchKey("m", ("dense",), Lane.BULK), KEY, BatchKey("n", ("dense",)))
    queue = BatchQueue(10)
    queue.put(bulk, [work(1, at=0.0)])
    queue.put(query, [work(1, at=BULK_HANDICAP_S / 2)])
    queue.put(other, [work(1, at=BULK_HANDICAP_S * 2)])
    assert queue.keys() == [query, bulk, other]
    assert queue.models() == {"model", "m", "n"}
    assert queue.oldest() == 0.0


def test_discard_removes_exactly_what_matches():
    call, other = Call(2, Nowhere()), Call(1, Nowhere())
    queue = BatchQueue(10)
    queue.put(KEY, [work(3, call=call), work(4, call=other), work(5, call=call, index=1)])
    gone = queue.discard(lambda _, w: w.call is call)
    assert sorted(w.tokens for w in gone) == [3, 5]
    assert queue.tokens == 4
    assert [w.call for w in queue.take(KEY)] == [other]


def test_what_waits_is_taken_in_parts_of_equal_tokens():
    queue = BatchQueue(1_000)
    queue.put(KEY, [work(5, index=i) for i in range(12)])
    assert [len(queue.take(KEY, parts)) for parts in (3, 2, 1)] == [4, 4, 4]


def test_callers_are_counted_once_each():
    queue, first = BatchQueue(100), Call(3, Nowhere())
    queue.put(KEY, [work(2, call=first, index=i) for i in range(3)])
    queue.put(KEY, [work(2), work(2)])
    assert queue.callers(KEY) == 3


def test_works_are_grouped_by_their_call():
    first, second = Call(2, Nowhere()), Call(1, Nowhere())
    works = [work(1, call=first), work(1, call=second), work(1, call=first, index=1)]
    assert dict(by_call(works)) == {first: [0, 2], second: [1]}


@pytest.mark.parametrize("length", [11, 10_000])
def test_a_sequence_longer_than_the_budget_runs_alone(length):
    queue = BatchQueue(10)
    queue.put(KEY, [work(length), work(2)])
    assert [w.tokens for w in queue.take(KEY)] == [length]
    assert [w.tokens for w in queue.take(KEY)] == [2]


def test_waiting_work_is_known_by_model():
    queue = BatchQueue(10)
    other, bulk = BatchKey("other", ("dense",)), BatchKey("model", ("dense",), Lane.BULK)
    gone = work(4, 1.0)
    queue.put(KEY, [gone, work(3, 5.0)])
    queue.put(bulk, [work(6, 2.0)])
    queue.put(other, [work(2, 4.0)])
    assert queue.waiting() == {"model": (13, 1.0), "other": (2, 4.0)}
    queue.discard(lambda key, item: item is gone)
    assert queue.waiting() == {"model": (9, 2.0), "other": (2, 4.0)}
    queue.take(other)
    assert queue.waiting() == {"model": (9, 2.0)} and queue.tokens == 9
