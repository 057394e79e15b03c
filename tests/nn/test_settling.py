"""What happens to weights after a model's first batch."""

from __future__ import annotations

import copy
import logging
import threading

import pytest
import torch
from torch import nn

from tercet.nn import settling
from tercet.nn.by_rows import RowWeight
from tercet.nn.jit.code import vector_shape
from tercet.nn.linear import Linear

if vector_shape() is None:
    pytest.skip("this processor has no vectors that the kernel is for", allow_module_level=True)


@pytest.fixture
def layer() -> Linear:
    made = Linear(64, 96, bias=False)
    made.packed, made.weight = RowWeight(torch.randn(96, 64)), None
    return made


def wait() -> None:
    done = threading.Event()
    settling.SETTLER.put(done.set)
    assert done.wait(30)


def laid(layer: Linear) -> bool:
    assert isinstance(layer.packed, RowWeight)
    return layer.packed.laid


def test_weights_are_laid_into_panels_and_answer_alike(layer: Linear) -> None:
    x = torch.randn(6, 64)
    before = layer(x)
    assert not laid(layer)
    settling.settle(nn.Sequential(nn.Identity(), nn.Sequential(layer)))
    wait()
    assert laid(layer)
    assert torch.equal(layer(x), before)


def test_a_weight_that_is_gone_is_left_out(layer: Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[RowWeight] = []
    monkeypatch.setattr(RowWeight, "lay", lambda weight, place: done.append(weight))
    gone, go_on = copy.deepcopy(layer), threading.Event()
    settling.SETTLER.put(lambda: go_on.wait(30))
    settling.settle(nn.Sequential(gone, layer))
    del gone
    go_on.set()
    wait()
    assert done == [layer.packed]


def test_without_memory_a_weight_stays_as_it_is(
    layer: Linear, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(weight: RowWeight, place: torch.Tensor) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(RowWeight, "lay", fail)
    with caplog.at_level(logging.WARNING):
        settling.settle(layer)
        wait()
    assert not laid(layer) and "stays as it is stored" in caplog.text
    assert layer(torch.randn(6, 64)).shape == (6, 96)


def test_the_end_waits_for_the_task_under_way_alone() -> None:
    settler, done, started, go_on = settling.Settler(), [], threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert go_on.wait(30)
        done.append("under way")

    settler.put(work)
    settler.put(lambda: done.append("waiting"))
    assert started.wait(30)
    threading.Timer(0.05, go_on.set).start()
    settler.stop()
    assert done == ["under way"]
