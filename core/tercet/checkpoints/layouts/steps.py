"""Dense, LayerNorm and Normalize modules: what follows pooling or, for late interaction, the token states."""

from __future__ import annotations

from collections.abc import Iterable

from tercet.checkpoints.layouts.modules import Module
from tercet.checkpoints.spec import DenseLayer, LayerNormStep, NormalizeStep, Step
from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.nn.activations import activation_name

_TANH = "torch.nn.modules.activation.Tanh"  # of a Dense module that names no activation


def read_steps(modules: Iterable[Module], width: int) -> tuple[tuple[Step, ...], int]:
    """Return the steps of a pipeline that starts `width` wide, and how wide it ends.

    Raises:
        CheckpointError: a module does not fit the width that reaches it.
    """
    steps: list[Step] = []
    for module in modules:
        match module.kind:
            case "Dense":
                steps.append(layer := _dense(module, width))
                width = layer.out_features
            case "LayerNorm":
                _check_width(module, "dimension", width)
                steps.append(LayerNormStep(module.weights, width))
            case "Normalize":
                steps.append(NormalizeStep())
    return tuple(steps), width


def read_activation(module_config: str, path: str) -> str | None:
    """Return the key of `ACTIVATIONS` for a class path.

    Raises:
        UnsupportedModelError: no such activation is known.
    """
    try:
        return activation_name(path)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{module_config}: {error.message}") from error


def _dense(module: Module, width: int) -> DenseLayer:
    config = module.config
    _check_width(module, "in_features", width)
    return DenseLayer(
        path=module.weights,
        in_features=width,
        out_features=config.typed("out_features", int),
        bias=config.typed("bias", bool, True),
        activation=read_activation(str(config.path), config.typed("activation_function", str, _TANH)),
        residual=config.typed("use_residual", bool, False),
    )


def _check_width(module: Module, key: str, width: int) -> None:
    stated = module.config.typed(key, int)
    if stated != width:
        raise CheckpointError(f"{module.config.path} has {key!r}: {stated}, but what reaches it is {width} wide")
