"""The processor: what kernels are chosen by on a CPU."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def has_avx512() -> bool:
    """Whether torch's kernels compute in vectors of 512 bits."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


@cache
def is_intel() -> bool:
    """Whether Intel made it."""
    try:
        maker = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        maker = platform.processor()
    return "GenuineIntel" in maker
