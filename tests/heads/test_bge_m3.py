"""BGE-M3's three outputs follow its paper and reference code, from one forward pass for any subset of them."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from support.checkpoints import TEXTS, encode, in_full
from support.tiny_models import save_m3
from tercet.checkpoints.checkpoint import EncodeSettings
from tercet.checkpoints.open import open_checkpoint
from tercet.checkpoints.spec import MultiVectorSpec
from tercet.errors import CheckpointError
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.types import Item, Output

OUTPUTS: tuple[Output, ...] = ("dense", "sparse", "multivector")


def sequences(directory: Path) -> list[TokenSequence]:
    prepared = open_checkpoint(str(directory)).encode([Item(text) for text in TEXTS], EncodeSettings(OUTPUTS))
    return [sequence for sequence in prepared if isinstance(sequence, TokenSequence)]


def linear(directory: Path, name: str, states: Tensor) -> Tensor:
    stored = torch.load(directory / name, weights_only=True)
    return states @ stored["weight"].T + stored["bias"]


@pytest.mark.parametrize("with_modules", [True, False])
def test_all_three_outputs(with_modules: bool, tmp_path: Path) -> None:
    reference = save_m3(tmp_path, with_modules=with_modules)
    ours = encode(tmp_path, TEXTS, *OUTPUTS)
    special = {0, 1, 2, 3}
    weights = in_full(ours["sparse"], reference.config["vocab_size"])
    for i, sequence in enumerate(sequences(tmp_path)):
        states = reference.states([sequence])
        assert np.abs(ours["dense"][i] - torch.nn.functional.normalize(states[0], dim=0).numpy()).max() <= 1e-5

        vectors = torch.nn.functional.normalize(linear(tmp_path, "colbert_linear.pt", states[1:]), dim=-1).numpy()
        assert ours["multivector"][i].shape == vectors.shape
        assert np.abs(ours["multivector"][i] - vectors).max() <= 1e-5

        expected = np.zeros_like(weights[i])
        token_weights = linear(tmp_path, "sparse_linear.pt", states).relu()[:, 0].tolist()
        for token, weight in zip(sequence.input_ids.tolist(), token_weights, strict=True):
            if token not in special:
                expected[token] = max(expected[token], weight)
        assert np.abs(weights[i] - expected).max() <= 1e-4
    assert (weights > 0).any() and not weights[:, sorted(special)].any()


SUBSETS = list(chain.from_iterable(combinations(OUTPUTS, n) for n in (1, 2, 3)))


@pytest.mark.parametrize("outputs", SUBSETS, ids="+".join)
def test_any_subset_takes_one_forward_pass(outputs: tuple[Output, ...], tmp_path: Path) -> None:
    save_m3(tmp_path)
    model = open_checkpoint(str(tmp_path)).load(torch.device("cpu"), torch.float32)
    passes: list[int] = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    batch = PackedBatch.of(sequences(tmp_path))
    together = model.rows(batch, OUTPUTS)
    assert len(passes) == 1
    chosen = model.rows(batch, outputs)
    assert len(passes) == 2 and tuple(chosen) == outputs
    for name in outputs:
        for mine, other in zip(chosen[name], together[name], strict=True):
            if name == "sparse":
                assert np.array_equal(mine.indices, other.indices) and np.array_equal(mine.values, other.values)
            else:
                assert np.array_equal(mine, other)


def test_its_own_score_is_the_mean_over_query_tokens(tmp_path: Path) -> None:
    save_m3(tmp_path)
    head = open_checkpoint(str(tmp_path)).spec.heads["multivector"]
    assert isinstance(head, MultiVectorSpec)
    assert head.trained and head.mean_over_query and head.drop_first


def test_a_side_file_that_is_code_is_not_run(tmp_path: Path) -> None:
    save_m3(tmp_path)
    torch.save({"weight": Item("an object of a class")}, tmp_path / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt"):
        open_checkpoint(str(tmp_path)).load(torch.device("cpu"), torch.float32)
