"""Every registered architecture against its published implementation, on weights and tokens drawn here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from support.parity import unit_difference
from support.reference import MILD_STD, WEIGHT_STD, Reference, draw_sequences, load_family, save_reference
from tercet.errors import CheckpointError
from tercet.models.registry import Backbone, families
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.model import Model
from tercet.nn.packed import packing
from tercet.nn.pooling import mean

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else ["cpu"]
LONGEST = 300  # long enough for several query blocks of a narrow window


@dataclass(frozen=True)
class Case:
    """One architecture under one configuration, with its reference on disk."""

    architecture: str
    family: type[Backbone]
    reference: Reference

    @property
    def head(self) -> str | None:
        """The head that the architecture's name promises."""
        return next((head for ending, head in HEADS.items() if self.architecture.endswith(ending)), None)

    @cached_property
    def sequences(self) -> list[TokenSequence]:
        longest = min(self.family.max_positions(self.reference.config), LONGEST)
        return draw_sequences(self.reference.config, [5, 1, longest, 2, 17, 17, 33], seed=3)

    @cached_property
    def states(self) -> Tensor:
        """The reference's (T, H) last hidden states of the sequences."""
        return self.reference.states(self.sequences)

    def load(self, device: str, dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
        return load_family(self.family, self.reference, head=self.head, device=device, dtype=dtype)


HEADS = {"ForMaskedLM": "masked_lm", "ForSequenceClassification": "classifier"}
LABELS = (1, 3)


def _settings(architecture: str, family: type[Backbone]) -> list[Mapping[str, Any]]:
    """Return each configuration to try: every variant, and every label count of a classifier."""
    variants: list[Mapping[str, Any]] = [{**family.tiny, **variant} for variant in family.variants]
    if architecture.endswith("ForSequenceClassification"):
        return [{**settings, "num_labels": labels} for settings in variants for labels in LABELS]
    return variants


CASES = [  # the first of each architecture in every run
    pytest.param((architecture, family, settings), id=f"{architecture}-{i}", marks=[pytest.mark.slow] if i else [])
    for architecture, family in sorted(families().items())
    for i, settings in enumerate(_settings(architecture, family))
]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _case(*request.param, tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module", params=CASES)
def mild(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _case(*request.param, tmp_path_factory.mktemp("mild"), MILD_STD)


def _case(
    architecture: str, family: type[Backbone], settings: Mapping[str, Any], directory: Path, std: float = WEIGHT_STD
) -> Case:
    return Case(architecture, family, save_reference(architecture, settings, directory, std=std))


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the scale of the values where that exceeds one."""
    return ((ours.cpu() - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


def _results(model: nn.ModuleDict, batch: PackedBatch) -> list[Tensor]:
    """Return the states, and the logits where there is a head."""
    with torch.inference_mode():
        hidden = Model(model["backbone"], {}).states(batch)
        if "head" not in model:
            return [hidden]
        classifies = hasattr(model["head"], "out")
        return [hidden, model["head"](hidden, batch) if classifies else model["head"](hidden)]


@pytest.mark.parametrize("device", DEVICES)
def test_float32_equals_the_reference(case: Case, device: str) -> None:
    model = case.load(device)
    ours = _results(model, PackedBatch.of(case.sequences, device))
    assert case.states.std() > 0.05 and ours[0].shape == case.states.shape
    assert unit_difference(ours[0], case.states) <= 1e-5
    if case.head is not None:
        logits = case.reference.logits(case.sequences)
        assert logits.std() > 0.05 and ours[1].shape == logits.shape
        assert (ours[1].cpu() - logits).abs().max() <= 1e-4


@pytest.mark.parametrize("device", DEVICES)
def test_a_text_alone_equals_itself_in_a_batch(case: Case, device: str) -> None:
    """Unit vectors to 1e-6, logits to half of what the reference may differ by."""
    model, sequences = case.load(device), case.sequences
    together = _results(model, PackedBatch.of(sequences, device))
    alone = [
        torch.cat(parts)
        for parts in zip(*(_results(model, PackedBatch.of([s], device)) for s in sequences), strict=True)
    ]
    # Attention's small products round by where their rows lie in memory, so that equal is not equal to the last bit.
    assert (normalize(together[0]) - normalize(alone[0])).abs().max() <= 1e-6
    if case.head is not None:
        assert _difference(together[1], alone[1].cpu()) <= 5e-6


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_keeps_the_direction(mild: Case, device: str) -> None:
    batch = PackedBatch.of(mild.sequences, device)
    ours = mean(_results(mild.load(device, torch.bfloat16), batch)[0].float(), batch).cpu()
    host = PackedBatch.of(mild.sequences)
    theirs = mean(mild.states, host)
    assert torch.cosine_similarity(ours, theirs).min() >= 0.999


@pytest.mark.parametrize(("dtype", "least"), [(torch.int8, 0.99), (torch.int16, 0.99999)])
def test_rounding_keeps_the_direction(mild: Case, dtype: torch.dtype, least: float) -> None:
    if packing(dtype) is None:
        pytest.skip(f"this processor does not multiply {dtype}")
    batch = PackedBatch.of(mild.sequences)
    ours = mean(_results(mild.load("cpu", dtype), batch)[0], batch)
    assert torch.cosine_similarity(ours, mean(mild.states, batch)).min() >= least


FAMILIES = [pytest.param(family, id=family.__name__) for family in dict.fromkeys(families().values())]


@pytest.fixture
def tiny(request: pytest.FixtureRequest, tmp_path: Any) -> Case:
    family = request.param
    architecture = family.architectures[0]
    return Case(architecture, family, save_reference(architecture, family.tiny, tmp_path))


@pytest.mark.parametrize("tiny", FAMILIES, indirect=True)
def test_weights_that_do_not_fit_are_refused(tiny: Case) -> None:
    (file,) = tiny.reference.weights
    stored = load_file(file)
    matrices = [name for name, tensor in stored.items() if "layer" in name and tensor.ndim == 2]
    vectors = [name for name, tensor in stored.items() if "layer" in name and tensor.ndim == 1]

    def load_with(changed: dict[str, Tensor]) -> None:
        save_file(changed, file)
        tiny.load("cpu")

    for name in (*matrices[:6], *vectors[:6]):
        with pytest.raises(CheckpointError, match=r"missing: |the configuration says"):
            load_with({other: tensor for other, tensor in stored.items() if other != name})
    for name in matrices[:6]:
        rows, columns = stored[name].shape
        for shape in ((rows + 1, columns), (rows, columns + 1)):
            with pytest.raises(CheckpointError, match="the configuration says"):
                load_with(stored | {name: torch.zeros(shape)})
    with pytest.raises(CheckpointError, match=r"unexpected: layers\.0\.stranger\.weight"):
        load_with(stored | {"layers.0.stranger.weight": torch.zeros(2)})


@pytest.mark.parametrize("tiny", [p for p in FAMILIES if p.values[0].prefixes], indirect=True)
def test_a_prefix_may_stand_in_front_of_all_names(tiny: Case) -> None:
    (file,) = tiny.reference.weights
    stored = load_file(file)
    expected = tiny.states
    for prefix in ("", *tiny.family.prefixes):
        save_file({prefix + _bare(name, tiny.family): tensor for name, tensor in stored.items()}, file)
        (ours,) = _results(tiny.load("cpu"), PackedBatch.of(tiny.sequences))
        assert unit_difference(ours, expected) <= 1e-5


def _bare(name: str, family: type[Backbone]) -> str:
    return name.removeprefix(next((p for p in family.prefixes if name.startswith(p)), ""))


def test_norms_may_be_called_gamma_and_beta(tmp_path: Any) -> None:
    family = families()["BertModel"]
    case = Case("BertModel", family, save_reference("BertModel", family.tiny, tmp_path))
    (file,) = case.reference.weights
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    stored = load_file(file)
    renamed = {next((n.replace(a, b) for a, b in old.items() if a in n), n): tensor for n, tensor in stored.items()}
    assert len(renamed.keys() - stored.keys()) == 2 * (1 + 2 * family.tiny["num_hidden_layers"])
    save_file(renamed, file)
    (ours,) = _results(case.load("cpu"), PackedBatch.of(case.sequences))
    assert unit_difference(ours, case.states) <= 1e-5
