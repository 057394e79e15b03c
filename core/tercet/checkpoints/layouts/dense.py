"""Transformer + Pooling (+ Dense, LayerNorm, Normalize): one vector per text."""

from __future__ import annotations

from collections.abc import Sequence

from tercet.checkpoints.files import Files, Settings
from tercet.checkpoints.layouts.layout import Layout, token_states
from tercet.checkpoints.layouts.modules import Module, check_order
from tercet.checkpoints.layouts.steps import read_steps
from tercet.checkpoints.spec import DenseSpec
from tercet.errors import CheckpointError
from tercet.nn.pooling import POOLINGS

# Modes in the order in which their vectors stand side by side, under their old flags and new names.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_NAMES = {**{name: name for name in POOLINGS}, "mean_sqrt_len_tokens": "mean_sqrt_len"}


def read(files: Files, modules: Sequence[Module]) -> Layout:
    """Return the dense output that the modules describe, and token states."""
    check_order(modules, ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"), files.root / "modules.json")
    if [m.kind for m in modules].index("Pooling") != 1:
        raise CheckpointError(f"{files.root / 'modules.json'}: Pooling must be the second module")
    pooling = modules[1].config
    width = files.hidden_size
    for key in ("embedding_dimension", "word_embedding_dimension"):
        if pooling.typed(key, int, width) != width:
            raise CheckpointError(f"{pooling.path} has {key!r}: {pooling[key]}, {files.config.path} says {width}")
    poolings = read_poolings(pooling)
    steps, dims = read_steps(modules[2:], width * len(poolings))
    dense = DenseSpec(poolings, steps, dims, pooling.typed("include_prompt", bool, True))
    return Layout({"dense": dense, "multivector": token_states(width)})


def read_poolings(pooling: Settings) -> tuple[str, ...]:
    """Return the poolings that a Pooling module's settings name, mean where they name none.

    Raises:
        UnsupportedModelError: one is not known.
    """
    if "pooling_mode" in pooling:
        mode = pooling["pooling_mode"]
        names = [_NAMES.get(str(name)) for name in (mode if isinstance(mode, list) else [mode])]
        chosen = tuple(name for name in names if name is not None)
        if not names or len(chosen) < len(names):
            raise pooling.unknown("pooling_mode", ", ".join(sorted(_NAMES)))
        return chosen
    flags = {key: pooling.typed(key, bool) for key in pooling if key.startswith("pooling_mode_")}
    unknown = next((key for key, on in flags.items() if on and key not in _MODES), None)
    if unknown:
        raise pooling.unknown(unknown, ", ".join(_MODES))
    chosen = tuple(name for key, name in _MODES.items() if flags.get(key))
    return chosen or ("mean",)
