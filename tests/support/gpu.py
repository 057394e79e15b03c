"""What tests that need an NVIDIA device are marked with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch

T = TypeVar("T", bound=Callable[..., object])

# For a parameter; a module takes them as its `pytestmark`.
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA device")]


def needs_gpu(test: T) -> T:
    """Mark one test."""
    for mark in NEEDS_GPU:
        test = mark(test)
    return test
