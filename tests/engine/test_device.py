"""Sizes, devices and precisions, and how an allocation failure is told from other errors."""

import psutil
import pytest
import torch

from tercet import InvalidInputError
from tercet.engine import device as module
from tercet.engine.device import is_out_of_memory, open_device, parse_bytes


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 1), (8_000_000, 8_000_000), ("8GiB", 8 << 30), ("500 MB", 500_000_000), ("1.5kib", 1536), ("7b", 7)],
)
def test_sizes_are_read(size, expected):
    assert parse_bytes(size) == expected


@pytest.mark.parametrize("size", [0, -5, "8 parsecs", "", "GiB", "-1GiB", True, None, "1e9"])
def test_other_sizes_are_refused(size):
    with pytest.raises(InvalidInputError, match="is not a memory size"):
        parse_bytes(size)


def test_the_cpu_runs_float32_within_half_of_the_memory():
    device = open_device("cpu", "auto", None)
    assert device.dtype is torch.float32 and device.target.type == "cpu"
    assert 0 < device.budget_bytes <= psutil.virtual_memory().total / 2
    assert open_device("cpu", "bfloat16", "1GiB").dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("precision", "packs", "told"), [("bfloat16", False, 1), ("bfloat16", True, 0), ("float32", False, 0)]
)
def test_a_precision_without_a_fast_kernel_is_said_to_be_slow(precision, packs, told, monkeypatch, caplog):
    monkeypatch.setattr(module, "packing", lambda dtype: packs)
    open_device("cpu", precision, None)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * told


@pytest.mark.parametrize(("precision", "needed"), [("int8", "VNNI or AMX"), ("int16", "AVX2 or AVX-512BW")])
def test_rounding_is_refused_where_it_would_be_slow(precision, needed, monkeypatch):
    monkeypatch.setattr(module, "packing", lambda dtype: None)
    with pytest.raises(InvalidInputError, match=f"CPU with {needed}.* use one of float32, bfloat16, float16$"):
        open_device("cpu", precision, None)


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", ""])
def test_unknown_devices_are_refused(name):
    with pytest.raises(InvalidInputError, match="device"):
        open_device(name, "auto", None)


def test_only_failed_allocations_count_as_out_of_memory():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError())
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(other.value)
