"""What DeBERTa-v2 refuses, and how little of its position table a batch touches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tercet.errors import UnsupportedModelError
from tercet.models.deberta_v2 import DebertaV2
from tercet.nn.batch import PackedBatch, TokenSequence

CONFIG = {**DebertaV2.tiny, "type_vocab_size": 0, "hidden_act": "gelu"}


@pytest.mark.parametrize(
    "changed",
    [{"relative_attention": False}, {"share_att_key": False}, {"pos_att_type": ["c2p"]}, {"pos_att_type": None}],
)
def test_other_attention_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"share_att_key .* config\.json says"):
        DebertaV2({**CONFIG, **changed})


def test_only_distances_that_occur_are_projected() -> None:
    model = DebertaV2(CONFIG)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    batch = PackedBatch.of([TokenSequence(np.zeros(n, np.int64)) for n in (1, 4, 2)])
    distances = model.distances_in(batch)
    assert distances.vectors.shape == (7, 32)
    assert distances.rows.tolist() == list(range(7))
    span = CONFIG["position_buckets"]
    expected = model.distances_norm(model.distances.weight[span - 3 : span + 4])
    assert torch.equal(distances.vectors, expected)
