"""From a `ModelSpec` to a `Model` on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tercet.checkpoints.spec import (
    CrossEncoderSpec,
    DenseLayer,
    DenseSpec,
    HeadSpec,
    LayerNormStep,
    LexicalSpec,
    ModelSpec,
    MultiVectorSpec,
    NormalizeStep,
    SpladeSpec,
    Step,
    YesNoSpec,
)
from tercet.checkpoints.weights import Source, load_weights
from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.models.generic import Generic, GenericMaskedLM, Reads, check_buildable
from tercet.models.registry import Backbone, Renames, families
from tercet.nn import linear
from tercet.nn.by_rows import RowWeight
from tercet.nn.heads import Classifier, Dense, DenseHead, Head, MaskedLM, Normalize, ScoreHead
from tercet.nn.model import Model
from tercet.nn.multivector import MultiVectorHead
from tercet.nn.norms import LayerNorm
from tercet.nn.packed import is_rounded, states_dtype
from tercet.nn.sparse import LexicalHead, SpladeHead
from tercet.nn.yes_no import YesNoHead

_WORDS = "backbone.embeddings.words.weight"  # what a language-model head without weights of its own shares


def load(spec: ModelSpec, device: torch.device, dtype: torch.dtype, cores: int = 1) -> Model:
    """Return the model that `spec` describes, its weights on `device` in `dtype` and in the kernels' layout.

    Args:
        dtype: in int8 and int16, the weights of the backbone's products are rounded, and all else is float32.
        cores: how many may change the layout, and will at most compute.

    Raises:
        UnsupportedModelError: no family runs this architecture; the message lists those that exist.
        CheckpointError: the weights are damaged or do not fit the configuration.
    """
    model = build(spec, dtype)
    if isinstance(model.backbone, Generic) and is_rounded(dtype):
        raise UnsupportedModelError(
            f"{spec.architecture} runs by transformers, where weights are not rounded; use float32 or bfloat16 for it"
        )
    load_weights(model, list(_sources(spec, family_of(spec))), device)
    if isinstance(model.backbone, Generic):
        _fill(model, spec, device, dtype)
    linear.prepare(model.backbone, cores, dtype)
    for part in model.heads.modules():
        if isinstance(part, MaskedLM):
            linear.prepare(part, cores)
    # Elsewhere rows are few, and a library's kernel, compiled for each count of them, would cost more than it saves.
    linear.prepare(model.heads, cores, only=RowWeight)
    if device.type == "cuda":  # weights are used on other streams than on which they came
        torch.cuda.current_stream(device).synchronize()
    return model.eval()


def build(spec: ModelSpec, dtype: torch.dtype) -> Model:
    """Return the model with empty weights on the meta device, in the types that they will have.

    The backbone and the heads that come with it have `dtype`; what follows them is small and stays in float32.

    Raises:
        CheckpointError: the configuration lacks a value that the architecture needs, or has a senseless one.
    """
    family = family_of(spec)
    try:
        with torch.device("meta"), _Uninitialized():
            heads = {name: _head(head, family, spec) for name, head in spec.heads.items()}
            model = Model(family.from_config(spec.config), heads)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"holds a wrong value: {error}"
        raise CheckpointError(f"{spec.directory / 'config.json'} of a {spec.architecture} {reason}") from error
    for part in (model.backbone, *model.heads.modules()):
        if part is model.backbone or isinstance(part, MaskedLM | Classifier):
            part.to(states_dtype(dtype))
    return model


class _Uninitialized(TorchFunctionMode):
    """Leaves out what modules draw at random when they are made.

    On the meta device nothing is drawn, but torch imports its compiler to find that out: a second, and 80 MB.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def size_bytes(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Return the bytes that the model's weights take in `dtype`."""
    model = build(spec, dtype)
    stored = spec.size_bytes * dtype.itemsize // 4 if isinstance(model.backbone, Generic) else 0
    saved = linear.rounding_saves(model.backbone, dtype) if is_rounded(dtype) else 0
    return stored - saved + sum(parameter.nbytes for parameter in model.parameters())


def family_of(spec: ModelSpec) -> type[Backbone]:
    """Return the family that runs the architecture, the generic one where none of ours does.

    Raises:
        UnsupportedModelError: transformers cannot build it either; the message lists the families that exist.
    """
    known = families()
    if spec.architecture in known:
        return known[spec.architecture]
    check_buildable(spec.config, spec.architecture)
    return Generic


def _fill(model: Model, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
    """Let transformers load the backbone and what its heads need of it."""
    assert isinstance(model.backbone, Generic)
    languages = [part for part in model.heads.modules() if isinstance(part, GenericMaskedLM)]
    reads: Reads = "states and language model" if languages else "states"
    if isinstance(spec.heads.get("score"), CrossEncoderSpec):
        reads = "classifier"
    head = model.backbone.fill(spec.directory, reads, device, dtype)
    for language in languages:
        assert head is not None
        language.model = head


def _head(head: HeadSpec, family: type[Backbone], spec: ModelSpec) -> Head:
    match head:
        case DenseSpec():
            return DenseHead(head.poolings, [_step(step) for step in head.steps])
        case SpladeSpec():
            return SpladeHead(family.masked_lm(spec.config), head.pooling, head.activation)
        case LexicalSpec():
            return LexicalHead(spec.hidden_size, head.dropped_ids)
        case MultiVectorSpec():
            return MultiVectorHead([_step(step) for step in head.steps], drop_first=head.drop_first)
        case CrossEncoderSpec():
            return ScoreHead(family.classifier(spec.config), head.activation)
        case YesNoSpec():
            return YesNoHead(spec.hidden_size, len(head.answers), head.activation)
        case _:
            raise UnsupportedModelError(f"{spec.id}: no head for {type(head).__name__}")


def _step(step: Step) -> nn.Module:
    match step:
        case DenseLayer():
            return Dense(
                step.in_features,
                step.out_features,
                bias=step.bias,
                activation=step.activation,
                residual=step.residual,
            )
        case LayerNormStep():
            return LayerNorm(step.width)
        case NormalizeStep():
            return Normalize()


def _sources(spec: ModelSpec, family: type[Backbone]) -> Iterator[Source]:
    """Yield every file to read: the backbone's with all heads that live in it, then the side files."""
    renames = {old: f"backbone.{new}" for old, new in family.renames.items()}
    tied: dict[str, str] = {}
    rows: dict[str, tuple[int, ...]] = {}
    for name, head in spec.heads.items():
        renames |= _renames(f"heads.{name}", head, family)
        match head:
            case SpladeSpec():
                tied[f"heads.{name}.masked_lm.decoder.weight"] = _WORDS
            case YesNoSpec():
                tied[f"heads.{name}.answers.weight"] = _WORDS
                rows[f"heads.{name}.answers.weight"] = head.answers
    if family is not Generic:
        yield Source(spec.weights, renames, family.prefixes, family.ignored, tied, rows)
    yield from _side_sources(spec)


def _renames(path: str, head: HeadSpec, family: type[Backbone]) -> Renames:
    """Return where the backbone's files keep what the head at `path` needs."""
    match head:
        case SpladeSpec():
            return _below(f"{path}.masked_lm", family.masked_lm_renames)
        case CrossEncoderSpec():
            return _below(f"{path}.classifier", family.classifier_renames)
        case YesNoSpec():
            return {"lm_head": f"{path}.answers"}
        case MultiVectorSpec(steps=(DenseLayer(path=None), *_)):
            return {"linear": f"{path}.steps.0.linear"}
        case _:
            return {}


def _below(path: str, renames: Renames) -> Mapping[str, str]:
    return {old: f"{path}.{new}" for old, new in renames.items()}


def _side_sources(spec: ModelSpec) -> Iterator[Source]:
    """Yield the files beside the backbone's; a `.pt` file holds one layer and calls it nothing."""
    for name, head in spec.heads.items():
        if isinstance(head, LexicalSpec):
            yield Source((head.path,), _bare(f"heads.{name}.linear"))
        for i, step in enumerate(getattr(head, "steps", ())):
            path = f"heads.{name}.steps.{i}"
            if isinstance(step, DenseLayer) and step.path is not None:
                named = {"linear": f"{path}.linear", "residual": f"{path}.skip"}
                yield Source((step.path,), _bare(f"{path}.linear") if step.path.suffix == ".pt" else named)
            elif isinstance(step, LayerNormStep):
                yield Source((step.path,), {"norm": path})


def _bare(path: str) -> Renames:
    return {"weight": f"{path}.weight", "bias": f"{path}.bias"}
