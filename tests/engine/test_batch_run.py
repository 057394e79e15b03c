"""The ladder: what happens to a batch that does not fit, that is poisoned, or that comes out as NaN."""

import numpy as np
import pytest
import torch

from tercet.engine.batch_run import run_batch
from tercet.engine.calls import Call
from tercet.engine.device import Device
from tercet.engine.queue import Work
from tercet.errors import CheckpointError, OutOfMemoryError, TercetError
from tercet.nn.batch import TokenSequence
from tercet.types import SparseVector

CPU = Device(torch.device("cpu"), "float32", 1, 64)


class Nowhere:
    def put(self, indices, rows):
        raise AssertionError("nothing is delivered here")


def works(*lengths):
    call = Call(len(lengths), Nowhere())
    return [Work(call, i, TokenSequence(np.full(n, i, np.int64)), 0.0) for i, n in enumerate(lengths)]


class Computes:
    """A model whose row for a sequence is its tokens' sum, until `trouble(batch)` raises or spoils it."""

    def __init__(self, trouble):
        self.trouble, self.batches = trouble, []

    def rows(self, batch, outputs):
        self.batches.append(batch.lengths)
        rows = np.array([[float(s.input_ids.sum())] for s in batch.sequences], np.float32)
        return {name: self.trouble(batch, rows) for name in outputs}


def run(model, batch, evicted=None):
    outcomes = list(
        run_batch(model, batch, ("dense",), CPU, lambda: evicted.append(1) if evicted is not None else None)
    )
    rows, errors = {}, {}
    for part, outcome in outcomes:
        for position, work in enumerate(part):
            if isinstance(outcome, Exception):
                errors[work.index] = outcome
            else:
                rows[work.index] = outcome["dense"][position]
    assert len(rows) + len(errors) == len(batch)
    return rows, errors


def fits(limit, error=MemoryError):
    def trouble(batch, rows):
        if sum(batch.lengths) > limit:
            raise error("no room")
        return rows

    return trouble


def test_a_batch_that_fits_runs_once():
    model = Computes(fits(100))
    rows, errors = run(model, works(3, 4))
    assert not errors and {i: row.tolist() for i, row in rows.items()} == {0: [0.0], 1: [4.0]}
    assert model.batches == [(3, 4)]


@pytest.mark.parametrize(
    "error", [MemoryError, torch.OutOfMemoryError, lambda text: RuntimeError(f"can't allocate {text}")]
)
def test_out_of_memory_evicts_idle_models_then_halves_the_batch(error):
    evicted = []
    rows, errors = run(model := Computes(fits(8, error)), works(3, 4, 5, 6), evicted)
    assert not errors
    assert {i: row[0] for i, row in rows.items()} == {0: 0, 1: 4, 2: 10, 3: 18}
    assert evicted
    assert model.batches[:3] == [(3, 4, 5, 6)] * 3  # as it is, after freeing the cache, after evicting
    assert {(3, 4), (5,), (6,)} <= set(model.batches)


def test_one_sequence_that_never_fits_fails_alone():
    rows, errors = run(Computes(fits(8)), works(3, 9, 4))
    assert sorted(rows) == [0, 2]
    assert isinstance(errors[1], OutOfMemoryError)
    assert "item 1 with 9 tokens" in str(errors[1])


def test_a_poisoned_input_fails_alone():
    def poison(batch, rows):
        if any(s.input_ids[0] == 2 for s in batch.sequences):
            raise IndexError("index out of range in self")
        return rows

    evicted = []
    rows, errors = run(Computes(poison), works(1, 1, 1, 1, 1), evicted)
    assert sorted(rows) == [0, 1, 3, 4] and list(errors) == [2]
    assert isinstance(errors[2], TercetError)
    assert "item 2" in str(errors[2]) and "IndexError: index out of range" in str(errors[2])
    assert not evicted  # memory was not the trouble


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_fail_alone(bad):
    def spoil(batch, rows):
        rows[1] = bad
        return rows

    rows, errors = run(Computes(spoil), works(1, 2, 3))
    assert sorted(rows) == [0, 2]
    assert isinstance(errors[1], CheckpointError) and "item 1" in str(errors[1])


def test_sparse_rows_are_checked_too():
    def sparse(batch, rows):
        return [SparseVector(np.array([1], np.uint32), np.array([value], np.float32)) for value in (1.0, np.nan)]

    rows, errors = run(Computes(sparse), works(1, 2))
    assert sorted(rows) == [0] and isinstance(errors[1], CheckpointError)


def test_each_step_out_of_memory_is_told():
    steps = []
    outcomes = [*run_batch(Computes(fits(4)), works(4, 5), ("dense",), CPU, lambda: None, steps.append)]
    assert [len(part) for part, _ in outcomes] == [1, 1] and isinstance(outcomes[1][1], OutOfMemoryError)
    assert steps == ["release", "evict", "halve", "release", "evict", "refuse"]
    steps.clear()
    list(run_batch(Computes(fits(4, ValueError)), works(4, 5), ("dense",), CPU, lambda: None, steps.append))
    assert steps == []
