"""Transfers: what arrives is what was sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from support.gpu import NEEDS_GPU, needs_gpu
from tercet.nn.layout import Layout
from tercet.nn.transfer import to_host, upload

ARRAYS = [
    np.arange(7, dtype=np.int32),
    np.arange(1000) * -1,
    np.array([True, False]),
    np.array([], np.int64),
    np.eye(3)[1],
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_arrays_arrive_in_one_block(device: str) -> None:
    layout = Layout.of(ARRAYS)
    for arrays in (ARRAYS, [array + 1 for array in ARRAYS[:2]] + ARRAYS[2:]):  # the second time through the same memory
        there = layout.views(upload(arrays, layout, torch.device(device)))
        for array, tensor in zip(arrays, there, strict=True):
            assert tensor.device.type == device and tensor.data_ptr() % 16 == 0 and tensor.is_contiguous()
            assert np.array_equal(to_host(tensor), array) and to_host(tensor).dtype == array.dtype


@needs_gpu
def test_results_are_there_when_they_are_read() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x = torch.randn(2000, 2000, device="cuda")
        for _ in range(30):
            x = (x @ x).tanh()  # still running when the copy is asked for
        first, again = to_host(x), to_host(x + 1)
        torch.cuda.synchronize()
        assert np.array_equal(first, x.cpu().numpy()) and np.array_equal(again, (x + 1).cpu().numpy())


@needs_gpu
def test_a_result_may_be_dropped_while_its_thread_records() -> None:
    """Its memory is no allocator's, whose note of that would become part of the recording."""
    with torch.cuda.stream(torch.cuda.Stream()), ThreadPoolExecutor(1) as other:
        x = torch.ones(1 << 20, device="cuda")
        results, graph = [to_host(x)], torch.cuda.CUDAGraph()
        graph.capture_begin(capture_error_mode="thread_local")
        y = x + 1
        other.submit(results.clear).result()
        graph.capture_end()
        graph.replay()
        assert np.array_equal(to_host(y), np.full(1 << 20, 2, np.float32))
