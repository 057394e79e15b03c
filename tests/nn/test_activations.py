"""Names of activations and what they compute."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import ACT2FN

from tercet.errors import UnsupportedModelError
from tercet.nn.activations import ACTIVATIONS, IN_PLACE, activation_name


def apply(name: str, x: Tensor) -> Tensor:
    return ACTIVATIONS[activation_name(name)](x)


@pytest.mark.parametrize(
    "name",
    ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish", "tanh", "sigmoid", "linear"],
)
def test_a_checkpoints_name_means_what_it_means_there(name: str) -> None:
    x = torch.linspace(-6, 6, 999, dtype=torch.float64)
    assert torch.allclose(apply(name, x), ACT2FN[name](x), atol=1e-7)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("torch.nn.modules.activation.Tanh", torch.tanh),
        ("torch.nn.modules.activation.GELU", F.gelu),
        ("torch.nn.modules.activation.Sigmoid", torch.sigmoid),
        ("torch.nn.modules.linear.Identity", lambda x: x),
    ],
)
def test_a_class_path_names_its_function(path: str, expected: object) -> None:
    x = torch.linspace(-3, 3, 99)
    assert torch.equal(apply(path, x), expected(x))  # type: ignore[operator]


def test_the_two_forms_of_gelu_differ() -> None:
    x = torch.tensor([2.0], dtype=torch.float64)
    assert apply("gelu", x).item() == pytest.approx(0.5 * 2 * (1 + math.erf(2 / math.sqrt(2))), abs=1e-12)
    assert abs((apply("gelu", x) - apply("gelu_new", x)).item()) > 5e-5


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'maxout' is not known; known are .*gelu.*tanh"):
        activation_name("maxout")


@pytest.mark.parametrize("name", list(ACTIVATIONS), ids=str)
def test_in_place_is_the_same_and_needs_no_second_buffer(name):
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(3))
    given = x.clone()
    out = IN_PLACE[name](given)
    assert torch.equal(out, ACTIVATIONS[name](x)) and out.data_ptr() == given.data_ptr()
    assert ACTIVATIONS.keys() == IN_PLACE.keys()
