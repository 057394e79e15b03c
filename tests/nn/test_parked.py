"""Parked models: the device gives its memory back, and what comes back is what left."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.gpu import NEEDS_GPU, needs_gpu
from support.tiny_models import save_bert
from tercet.checkpoints.checkpoint import EncodeSettings
from tercet.checkpoints.open import open_checkpoint
from tercet.nn.batch import PackedBatch
from tercet.nn.model import Model
from tercet.nn.parked import Parked
from tercet.nn.settling import SETTLER
from tercet.types import Item

DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


@pytest.mark.parametrize("device", DEVICES)
def test_what_comes_back_is_what_left(device: str, tmp_path: Path) -> None:
    save_bert(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    model = checkpoint.load(torch.device(device), torch.float32)
    sequences = checkpoint.encode([Item("hello world"), Item("numbers 0 1 2")], EncodeSettings())

    def vectors(model: Model) -> NDArray[np.float32]:
        return np.array(model.rows(PackedBatch.of(sequences, device), ["dense"])["dense"])  # type: ignore[arg-type]

    before, names = vectors(model), [name for name, _ in model.named_parameters()]
    laid = threading.Event()
    SETTLER.put(laid.set)
    assert laid.wait(30)  # from then on a pass on a CPU is a program, which knows weights by their addresses
    parked = Parked(model)
    assert np.array_equal(vectors(model), before)  # a copy was made, and nothing moved
    assert parked.size_bytes >= sum(p.nbytes for p in model.parameters())
    for _ in range(2):
        parked.leave()
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        back = parked.come_back()
        assert back is model and {p.device.type for p in model.parameters()} == {device}
        assert [name for name, _ in model.named_parameters()] == names
        assert np.array_equal(vectors(model), before)


@needs_gpu
def test_a_parked_model_takes_no_memory_of_the_device(tmp_path: Path) -> None:
    save_bert(tmp_path, hidden_size=512, intermediate_size=2048)
    model = open_checkpoint(str(tmp_path)).load(torch.device("cuda"), torch.bfloat16)
    size = sum(p.nbytes for p in model.parameters())
    parked = Parked(model)
    held = torch.cuda.memory_allocated()
    parked.leave()
    assert held - torch.cuda.memory_allocated() >= size and parked._block.is_pinned()
    parked.come_back()
    assert abs(torch.cuda.memory_allocated() - held) <= size // 10
