"""Parking: evicted models wait in host memory within its budget, and come back from there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tercet.engine.lease import Resident
from tercet.engine.parking import ParkingLot
from tercet.engine.residency import Residency


class Weights:
    """Stands for a loaded model."""

    def __init__(self, name: str) -> None:
        self.name, self.there = name, True


class Kept:
    """Stands for a copy of it."""

    size_bytes = 10

    def __init__(self, model: Weights) -> None:
        self.model, self.returns = model, 0

    def leave(self) -> None:
        assert self.model.there
        self.model.there = False

    def come_back(self) -> Weights:
        assert not self.model.there
        self.model.there, self.returns = True, self.returns + 1
        return self.model


Make = Callable[..., Residency]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Residency] = []

    def build(budget: int, parking: int, copy: Callable[..., Kept] = Kept) -> Residency:
        made.append(Residency(budget, lot=ParkingLot(parking, copy)))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for residency in made:
        residency.close()


def add(residency: Residency, names: str) -> list[Resident]:
    return [residency.add(name, 1, lambda name=name: Weights(name)) for name in names]  # type: ignore[misc, return-value, arg-type]


def use(residency: Residency, record: Resident) -> Weights:
    lease = residency.acquire(record).result(5)
    lease.touch()
    lease.release()
    return lease.model  # type: ignore[return-value]


def use_and_copy(residency: Residency, *records: Resident) -> None:
    """Use each in turn, and wait until it has its copy."""
    for record in records:
        use(residency, record)
        until(lambda record=record: record.copy)  # type: ignore[misc]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.001)


def test_an_evicted_model_comes_back_from_its_copy(make: Make) -> None:
    residency = make(1, 100)
    a, b = add(residency, "ab")
    first = use(residency, a)
    until(lambda: a.copy)
    use(residency, b)
    assert (a.state, a.model, first.there) == ("parked", None, False)
    until(lambda: b.copy)
    again = use(residency, a)
    assert again is first and first.there and a.state == "resident" and b.state == "parked"
    assert (a.loads, a.evictions, a.copy.returns) == (2, 1, 1)  # type: ignore[union-attr]


def test_the_least_recently_used_copy_makes_room(make: Make) -> None:
    residency = make(1, 20)  # two copies
    a, b, c = add(residency, "abc")
    use_and_copy(residency, a, b, c)
    assert (a.state, b.state, c.state) == ("available", "parked", "resident") and a.copy is None
    assert use(residency, a).name == "a" and a.loads == 2  # from its files


def test_a_copy_that_is_too_large_is_made_once_and_not_kept(make: Make) -> None:
    made: list[str] = []

    def copy(model: Weights) -> Kept:
        made.append(model.name)
        return Kept(model)

    residency = make(2, 5, copy)
    a, b = add(residency, "ab")
    for record in (a, b, a, b):
        use(residency, record)
    until(lambda: len(made) == 2)
    residency.evict_idle()
    assert (a.state, b.state) == ("available", "available") and sorted(made) == ["a", "b"]


@pytest.mark.parametrize("error", [MemoryError("no pages"), RuntimeError("CUDA"), ValueError("what")])
def test_a_model_that_cannot_be_copied_runs_all_the_same(
    make: Make, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: Weights) -> Kept:
        raise error

    residency = make(1, 100, fail)
    a, b = add(residency, "ab")
    for record in (a, b, a):
        assert use(residency, record).name == record.name
        until(lambda record=record: f"{record.name} will be read from disk" in caplog.text)
    assert str(error) in caplog.text and caplog.text.count("a will be read") == 1


def test_unload_drops_the_copy_too(make: Make) -> None:
    residency = make(2, 100)
    a, b = add(residency, "ab")
    use_and_copy(residency, a, b)
    residency.evict_idle()
    assert (a.state, b.state) == ("parked", "parked") and residency.used_bytes == 0
    assert residency.unload(a) and a.state == "available" and a.copy is None
    use(residency, b)
    assert residency.unload(b) and b.state == "available" and b.copy is None


def test_a_model_evicted_while_it_is_copied_keeps_no_copy(make: Make) -> None:
    copying, go = threading.Event(), threading.Event()

    def slow(model: Weights) -> Kept:
        copying.set()
        assert go.wait(5)
        return Kept(model)

    residency = make(1, 100, slow)
    (a,) = add(residency, "a")
    use(residency, a)
    assert copying.wait(5)
    residency.evict_idle()
    go.set()
    assert use(residency, a).name == "a" and a.loads == 2
    until(lambda: a.copy)


def test_closing_drops_every_copy(make: Make) -> None:
    residency = make(1, 100)
    a, b = add(residency, "ab")
    use_and_copy(residency, a, b)
    residency.close()
    assert a.copy is None and b.copy is None and {a.state, b.state} == {"available"}
