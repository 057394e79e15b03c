"""How far a family's states lie from its reference's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from support.reference import Reference, draw_sequences, load_family
from tercet.models.registry import Backbone
from tercet.nn.batch import PackedBatch


def states_difference(family: type[Backbone], reference: Reference, lengths: Sequence[int]) -> float:
    """Return the largest difference over one packed batch, the tokens' states as unit vectors."""
    sequences = draw_sequences(reference.config, lengths, seed=7)
    with torch.inference_mode():
        ours = load_family(family, reference)["backbone"](PackedBatch.of(sequences))
    theirs = reference.states(sequences)
    return unit_difference(ours, theirs)


def unit_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference between (T, H) states, each as a unit vector."""
    return (normalize(ours.cpu()) - normalize(theirs)).abs().max().item()
