"""Rotary settings as configurations write them, in transformers' layout before version 5 and since.

Before: `rope_theta` (or a family's own keys) beside `rope_scaling`, `{"type" or "rope_type": "linear", "factor": 8}`.
Since: one dictionary `rope_parameters`, `{"rope_type": "linear", "rope_theta": 10000, "factor": 8}`, or one such
dictionary for each type of layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.models.registry import Config
from tercet.nn.rotary import DynamicRotary, Rotary, frequencies, ntk, yarn

Settings = Mapping[str, Any]


def rotary_from(
    config: Config, dim: int, *, theta: float, scaling: Settings | None = None, layer_type: str | None = None
) -> Rotary:
    """Return the angles that a configuration asks for.

    Args:
        config: the checkpoint's configuration; its `rope_parameters` come before what the other arguments say.
        dim: of each head.
        theta, scaling: as the family's keys of the old layout give them, or the family's default.
        layer_type: whose settings to take where each type of layer has its own.

    Raises:
        UnsupportedModelError: the scaling is of an unknown type.
        CheckpointError: the scaling lacks a value.
    """
    settings = {"rope_theta": theta, **(scaling or {}), **_new_layout(config, layer_type)}
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise UnsupportedModelError(f"rotary positions of type {kind!r} are not supported; known types: {known}")
    rotated = int(dim * settings.get("partial_rotary_factor", 1.0))
    try:
        return _KINDS[kind](rotated, settings, config)
    except KeyError as error:
        raise CheckpointError(f"rotary positions of type {kind!r} need {error} in config.json") from error


def _new_layout(config: Config, layer_type: str | None) -> Settings:
    parameters = config.get("rope_parameters") or {}
    return parameters.get(layer_type, parameters) or {}


def _default(dim: int, settings: Settings, config: Config) -> Rotary:
    return Rotary(frequencies(dim, settings["rope_theta"]))


def _linear(dim: int, settings: Settings, config: Config) -> Rotary:
    return Rotary(frequencies(dim, settings["rope_theta"]) / settings["factor"])


def _dynamic(dim: int, settings: Settings, config: Config) -> Rotary:
    limit = settings.get("original_max_position_embeddings") or config["max_position_embeddings"]
    return DynamicRotary(dim, settings["rope_theta"], settings["factor"], limit)


def _ntk(dim: int, settings: Settings, config: Config) -> Rotary:
    return Rotary(ntk(dim, settings["rope_theta"], settings["factor"], settings.get("mixed_b")))


def _yarn(dim: int, settings: Settings, config: Config) -> Rotary:
    trained = settings.get("original_max_position_embeddings") or config["max_position_embeddings"]
    factor = settings.get("factor") or config["max_position_embeddings"] / trained
    fast, slow = settings.get("beta_fast") or 32, settings.get("beta_slow") or 1
    turns = yarn(dim, settings["rope_theta"], factor, trained, fast, slow, settings.get("truncate", True))
    return Rotary(turns, settings.get("attention_factor") or _attention_factor(factor, settings))


def _attention_factor(factor: float, settings: Settings) -> float:
    def grown(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    over, under = settings.get("mscale"), settings.get("mscale_all_dim")
    return grown(over) / grown(under) if over and under else grown(1.0)


_KINDS: Mapping[str, Callable[[int, Settings, Config], Rotary]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "ntk": _ntk,
    "yarn": _yarn,
}
