"""Transfers: what arrives is what was sent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.gpu import NEEDS_GPU, needs_gpu
from tercet.nn.transfer import to_host, upload, views

ARRAYS = [
    np.arange(7, dtype=np.int32),
    np.arange(1000) * -1,
    np.array([True, False]),
    np.array([], np.int64),
    np.eye(3)[1],
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_arrays_arrive_in_one_block(device: str) -> None:
    block, there = upload(ARRAYS, torch.device(device))
    for array, tensor in zip(ARRAYS, there, strict=True):
        assert tensor.device.type == device and tensor.data_ptr() % 16 == 0
        assert np.array_equal(to_host(tensor), array) and to_host(tensor).dtype == array.dtype
    again = views(block, ARRAYS)
    assert [tensor.data_ptr() for tensor in again] == [tensor.data_ptr() for tensor in there]


@needs_gpu
def test_results_are_there_when_they_are_read() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x = torch.randn(2000, 2000, device="cuda")
        for _ in range(30):
            x = (x @ x).tanh()  # still running when the copy is asked for
        first = to_host(x).copy()
        torch.cuda.synchronize()
        assert np.array_equal(first, x.cpu().numpy())
