"""`ModelSpec` derives what it can from its heads and configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tercet.checkpoints.spec import (
    CrossEncoderSpec,
    DenseSpec,
    HeadSpec,
    ModelSpec,
    MultiVectorSpec,
    NormalizeStep,
    SpladeSpec,
    YesNoSpec,
)


def spec(config: Any = None, **heads: HeadSpec) -> ModelSpec:
    return ModelSpec("m", None, Path(), config or {}, "BertModel", heads, 512, (), 0)


def test_outputs_come_in_one_order_and_scores_are_none() -> None:
    made = spec(
        score=CrossEncoderSpec(3, None),
        multivector=MultiVectorSpec(8),
        sparse=SpladeSpec(99),
        dense=DenseSpec((), (), 4),
    )
    assert made.outputs == ("dense", "sparse", "multivector")
    assert made.dims == {"score": 3, "multivector": 8, "sparse": 99, "dense": 4}
    assert spec(score=YesNoSpec(5, 6, None)).dims == {"score": 1}


@pytest.mark.parametrize("key", ["hidden_size", "dim", "d_model", "n_embd"])
def test_the_width_has_several_names(key: str) -> None:
    assert spec({key: 24, "vocab_size": 7}).hidden_size == 24
    assert spec({key: 24, "vocab_size": 7}).vocab_size == 7


def test_vectors_are_normalised_when_a_step_says_so() -> None:
    assert DenseSpec(("mean",), (NormalizeStep(),), 4).normalized
    assert not DenseSpec(("mean",), (), 4).normalized


def test_answers_are_the_rows_that_are_read() -> None:
    assert YesNoSpec(5, 6, None).answers == (5, 6)
    assert YesNoSpec(5, None, None).answers == (5,)
