"""Transformer with a language-model head + SpladePooling: lexical weights."""

from __future__ import annotations

from collections.abc import Sequence

from tercet.checkpoints.files import Files
from tercet.checkpoints.layouts.layout import Layout, token_states
from tercet.checkpoints.layouts.modules import Module, check_order
from tercet.checkpoints.spec import SpladeSpec

_POOLINGS = {"max": "max", "sum": "sum"}
_ACTIVATIONS = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}  # the module applies one log1p by itself


def read(files: Files, modules: Sequence[Module]) -> Layout:
    """Return the sparse output that the modules describe, and token states."""
    check_order(modules, ("SpladePooling",), files.root / "modules.json")
    pooling = modules[1].config
    splade = SpladeSpec(
        dims=files.vocab_size,
        pooling=pooling.one_of("pooling_strategy", _POOLINGS, "max"),
        activation=pooling.one_of("activation_function", _ACTIVATIONS, "relu"),
    )
    return Layout({"sparse": splade, "multivector": token_states(files.hidden_size)})
