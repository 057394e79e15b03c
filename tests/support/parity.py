"""How far a family's states lie from its reference's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from support.reference import Reference, draw_sequences, load_family
from tercet.models.registry import Backbone
from tercet.nn.batch import PackedBatch


def states_difference(family: type[Backbone], reference: Reference, lengths: Sequence[int]) -> float:
    """Return the largest difference over one packed batch, relative to the states' scale where that exceeds one."""
    sequences = draw_sequences(reference.config, lengths, seed=7)
    with torch.inference_mode():
        ours = load_family(family, reference)["backbone"](PackedBatch.of(sequences))
    theirs = reference.states(sequences)
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()
