"""The processor: what kernels are chosen by on a CPU."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def has_avx512() -> bool:
    """Whether torch's kernels compute in vectors of 512 bits."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def vector_lanes(dtype: torch.dtype) -> int:
    """Return how many numbers torch's kernels compute at once: 64 bytes of them with AVX-512, else 32."""
    return (64 if has_avx512() else 32) // dtype.itemsize


def has_amx() -> bool:
    """Whether bfloat16 is multiplied in tiles."""
    return torch.cpu._is_amx_tile_supported()


@cache
def is_intel() -> bool:
    """Whether Intel made it."""
    try:
        maker = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        maker = platform.processor()
    return "GenuineIntel" in maker
