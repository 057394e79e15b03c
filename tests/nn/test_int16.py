"""Products in pairs of int16 against the same rounding written out, and what that rounding costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.reference import MILD_STD, draw_sequences, load_family, save_reference
from tercet.models.registry import families
from tercet.nn.batch import PackedBatch
from tercet.nn.int16 import Int16Weight
from tercet.nn.jit import code, pairs, product_kernel
from tercet.nn.jit.pairs import LARGEST, has_pairs, pairing_kernel
from tercet.nn.linear import Linear, kernel_name, prepare, rounding_saves
from tercet.nn.model import Model

if not has_pairs():
    pytest.skip("this processor does not multiply pairs of int16", allow_module_level=True)

ACTIVATIONS = {None: lambda x: x, "gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded_rows(x: Tensor) -> Tensor:
    step = x.double().abs().amax(1, keepdim=True).clamp(min=1e-30) / LARGEST
    return (x.double() / step).round() * step


def rounded_weight(weight: Tensor) -> Tensor:
    """Return each row in whole steps so small that, rounded up by half a one each, no 256 columns' sum is too large."""
    sums = torch.stack([block.double().abs().sum(1) for block in weight.split(256, 1)]).amax(0)
    most = (2**31 - 1) // LARGEST - 136
    step = torch.maximum(sums / most, weight.double().abs().amax(1) / 32767)[:, None]
    return (weight.double() / step).round() * step


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 97])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("added", [False, True])
def test_products_of_rounded_numbers(rows: int, activation: str | None, added: bool) -> None:
    x, weight, bias = draw(rows, 640), draw(48, 640, seed=1) / 25, draw(48, seed=2)
    residual = draw(rows, 48, seed=3) if added else None
    ours = Int16Weight(weight).multiply(x, bias, activation, residual)
    expected = ACTIVATIONS[activation](F.linear(rounded_rows(x), rounded_weight(weight), bias.double()))
    expected = expected if residual is None else expected + residual
    # A number midway between two steps may be rounded either way: a step's product, at most.
    assert (ours - expected).abs().max() <= 1e-4 and (ours - expected).abs().median() <= 2e-6


@pytest.mark.parametrize("outlier", [0.0, 30.0])
def test_what_rounding_costs(outlier: float) -> None:
    x, weight = draw(200, 384), draw(1536, 384, seed=1) / 20
    x[:, 100] += outlier
    ours = Int16Weight(weight).multiply(x, None, None, None)
    assert torch.cosine_similarity(ours.double(), F.linear(x.double(), weight.double())).min() >= 1 - 2e-6


@pytest.mark.parametrize("depth", [64, 256, 512, 1536])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_sums_fit(depth: int, sign: float) -> None:
    """Of equal numbers, whose products all are as large as any. Such weights are about 1024 ones each."""
    weight = torch.full((48, depth), 0.25)
    weight[1] = 1e-3 * draw(depth)
    weight[1, :: max(1, depth // 256)] = 0.3
    x = torch.full((3, depth), 7.0 * sign)
    expected = F.linear(x.double(), weight.double())
    assert torch.allclose(Int16Weight(weight).multiply(x, None, None, None).double(), expected, rtol=0.5 / 1000)


def test_a_row_comes_out_the_same_among_any_number_of_others() -> None:
    x, weight = draw(210, 640), Int16Weight(draw(80, 640, seed=1))
    together = weight.multiply(x, None, "gelu", None)
    for rows in (1, 2, 5, 33, 97):
        assert torch.equal(together[:rows], weight.multiply(x[:rows], None, "gelu", None))


def test_narrower_vectors_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, residual = draw(9, 640), draw(9, 48, seed=2)
    weight = draw(48, 640, seed=1).mul(64).round().div(64)  # whose sums are exact, in whatever order they are taken
    own = Int16Weight(weight).multiply(x, None, "gelu", residual)
    for module in (code, product_kernel):
        monkeypatch.setattr(module, "vector_shape", lambda: (4, 16))
    for kernel in (pairing_kernel, product_kernel.product_kernel, product_kernel.panels_kernel):
        monkeypatch.setattr(kernel, "kept", {})
    assert torch.equal(own, Int16Weight(weight).multiply(x, None, "gelu", residual))


def test_rows_and_weights_of_zeros() -> None:
    weight, x = draw(48, 64, seed=1), draw(3, 64)
    weight[3], x[1] = 0, 0
    out = Int16Weight(weight).multiply(x, None, None, None)
    assert not out[:, 3].any() and not out[1].any() and out.isfinite().all() and out[0].any()


def test_the_processor_must_have_them_in_its_own_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, features, expected in [
        ((8, 16), {"avx2": True}, True),
        ((16, 32), {"avx2": True, "avx512bw": False}, False),
        ((16, 32), {"avx512bw": True}, True),
        ((4, 32), {"neon": True}, False),
        (None, {}, False),
    ]:
        monkeypatch.setattr(pairs, "vector_shape", lambda shape=shape: shape)
        monkeypatch.setattr(pairs.llvm, "get_host_cpu_features", lambda features=features: features)
        assert has_pairs() is expected


def test_which_products_become_int16() -> None:
    net = torch.nn.Sequential(Linear(64, 48), Linear(48, 50))
    for part in net:
        torch.nn.init.normal_(part.weight)
        torch.nn.init.zeros_(part.bias)
    assert not Int16Weight.fits(net[1].weight) and rounding_saves(net, torch.int16) == 2 * 64 * 48
    prepare(net, dtype=torch.int16)
    assert isinstance(net[0].packed, Int16Weight) and not isinstance(net[1].packed, Int16Weight)
    assert kernel_name(torch.device("cpu"), torch.int16) == "tercet-int16"


@pytest.mark.parametrize("architecture", ["BertModel", "ModernBertModel"])
def test_programs_from_the_second_pass_on_give_the_bytes_of_the_first(architecture: str, tmp_path: Path) -> None:
    family = families()[architecture]
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": 512}
    reference = save_reference(architecture, {**family.tiny, **sizes}, tmp_path, std=MILD_STD)
    model = Model(load_family(family, reference, dtype=torch.int16)["backbone"], {})
    with torch.inference_mode():
        for lengths in [1], [3, 40, 1, 12], [200, 100, 300]:
            batch = PackedBatch.of(draw_sequences(reference.config, lengths, seed=sum(lengths)))
            expected = model.backbone(batch)
            assert all(torch.equal(model.states(batch), expected) for _ in range(2)) and expected.std() > 0.05
    assert [*filter(None, model.programs._made.values())]
