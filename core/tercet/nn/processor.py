"""The processor: what kernels are chosen by on a CPU."""

from __future__ import annotations

import torch


def has_avx512() -> bool:
    """Whether torch's kernels compute in vectors of 512 bits."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability()
