"""Families of architectures and where to find them.

A family is one file in this package: a `Backbone` subclass under `@register("SomeModel", "SomeForMaskedLM", …)`, the
names that `config.json` lists under `architectures`. Other distributions ship families under the entry point group
`tercet.models`, each entry naming a module to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor, nn

from tercet.errors import UnsupportedModelError
from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Classifier, MaskedLM

Config = Mapping[str, Any]  # a checkpoint's config.json
Renames = Mapping[str, str]


class Backbone(nn.Module):
    """An architecture's forward pass over packed tokens, and how its checkpoints name the weights.

    Renames map module paths, `*` standing for a layer's number: `{"encoder.layer.*.attention.self.query":
    "layers.*.attention.qkv:0"}` says that this weight (and bias) is part 0 of a fused product, the parts laid on top of
    each other in order. A path that ends in `.weight` or `.bias` renames one tensor.

    Attributes:
        paper: where the architecture is published.
        tiny: keyword arguments of a minimal transformers configuration, for the parity test.
        variants: what the parity test lays over `tiny`, one configuration each.
        prefixes: what a checkpoint may put in front of all names ("bert." in front of "encoder.layer…").
        renames: checkpoint path → path in this module.
        ignored: checkpoint paths that no retrieval output needs.
        masked_lm_renames, classifier_renames: the same for the heads' modules (`MaskedLM`, `Classifier`).
    """

    paper: ClassVar[str]
    tiny: ClassVar[Mapping[str, Any]]
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (MappingProxyType({}),)
    prefixes: ClassVar[tuple[str, ...]] = ()
    renames: ClassVar[Renames]
    ignored: ClassVar[tuple[str, ...]] = ()
    masked_lm_renames: ClassVar[Renames] = MappingProxyType({})
    classifier_renames: ClassVar[Renames] = MappingProxyType({})
    architectures: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module with empty weights (build it under `torch.device("meta")`)."""
        raise NotImplementedError

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H) last hidden states."""
        raise NotImplementedError

    @classmethod
    def masked_lm(cls, config: Config) -> MaskedLM:
        """Return the language-model head; its decoder shares the word table when the checkpoint stores none."""
        raise UnsupportedModelError(f"{cls.__name__} has no masked-language-model head")

    @classmethod
    def classifier(cls, config: Config) -> Classifier:
        """Return the sequence-classification head for `config["num_labels"]` labels."""
        raise UnsupportedModelError(f"{cls.__name__} has no sequence-classification head")

    @classmethod
    def max_positions(cls, config: Config) -> int:
        """Return the longest sequence that the position scheme can number."""
        return int(config.get("max_position_embeddings", 512))


F = TypeVar("F", bound=type[Backbone])
_families: dict[str, type[Backbone]] = {}


def register(*architectures: str) -> Callable[[F], F]:
    """Make the decorated backbone serve checkpoints of these architectures.

    Raises:
        ValueError: another family has one of the names.
    """

    def add(family: F) -> F:
        for name in architectures:
            if _families.setdefault(name, family) is not family:
                raise ValueError(f"{name} is registered by {_families[name].__name__} already")
        family.architectures = architectures
        return family

    return add


@cache
def _import_families() -> None:
    package = import_module("tercet.models")
    for module in iter_modules(package.__path__):
        import_module(f"tercet.models.{module.name}")
    for entry in entry_points(group="tercet.models"):
        entry.load()


def families() -> Mapping[str, type[Backbone]]:
    """Return every registered architecture and the family that runs it."""
    _import_families()
    return MappingProxyType(_families)


def num_labels(config: Config) -> int:
    """Return how many labels a classifier's configuration names; two, transformers' default, when it names none."""
    return int(config.get("num_labels") or len(config.get("id2label") or (0, 1)))
