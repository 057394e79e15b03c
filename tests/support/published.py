"""What the references of architectures share that transformers lacks: rotary positions and attention, plainly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig


class PublishedConfig(PreTrainedConfig):
    """A configuration whose file says exactly what it was given, as remote code on the hub writes it."""

    def __init__(self, num_labels: int = 2, **settings: Any) -> None:
        super().__init__(num_labels=num_labels)
        self.tie_word_embeddings = True
        self.settings = settings

    def to_dict(self) -> dict[str, Any]:
        written: dict[str, Any] = super().to_dict()
        return {**written, **written.pop("settings", {}), "model_type": self.model_type}


def rotated(x: Tensor, frequencies: Tensor) -> Tensor:
    """Return x (N, L, d) with dimensions i and i + r of its first 2 r turned as complex numbers by position · f_i."""
    r = len(frequencies)
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float32), frequencies)
    turned = torch.complex(x[..., :r], x[..., r : 2 * r]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag, x[..., 2 * r :]), -1)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return (L, N · d) attention of one text, all inputs (N, L, d)."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def heads(x: Tensor, count: int) -> Tensor:
    """Return (L, N · d) as (N, L, d)."""
    return x.unflatten(-1, (count, -1)).transpose(0, 1)
