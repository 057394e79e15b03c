"""The catalogue: what checkpoints' own files cannot say, read from `catalog.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class Package:
    """An installable Python package that holds a checkpoint.

    Attributes:
        ids: the model ids that it serves, the hub's own first.
        module: its import name; it is located but never imported.
        distribution: its name for pip.
        folder: where the checkpoint lies in it.
        sha256: file name → digest that the file must have.
    """

    ids: tuple[str, ...]
    module: str
    distribution: str
    folder: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SidePrompts:
    """What stands in front of queries and of documents; None for nothing."""

    query: str | None = None
    document: str | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """The whole catalogue.

    Attributes:
        packages: model id → the package that holds it.
        prompts: model id → prompts, for checkpoints whose files declare none.
        pair_truncation: model id → how over-long pairs are cut, where it is not "longest_first".
        models: architecture → published checkpoints.
    """

    packages: Mapping[str, Package] = field(default_factory=dict)
    prompts: Mapping[str, SidePrompts] = field(default_factory=dict)
    pair_truncation: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def ids(self) -> frozenset[str]:
        """Every id that is named anywhere."""
        listed = (model for models in self.models.values() for model in models)
        return frozenset([*listed, *self.packages, *self.prompts, *self.pair_truncation])

    @classmethod
    def from_toml(cls, text: str) -> Catalog:
        """Return what the text says.

        Raises:
            TypeError: it has a table or key that does not belong there.
            KeyError: an entry names no models.
            ValueError: two entries of one table name the same model.
        """
        tables = tomllib.loads(text)
        read = cls(
            packages=_by_id(tables.pop("packages", []), lambda entry: Package(**entry | {"ids": tuple(entry["ids"])})),
            prompts=_by_id(tables.pop("prompts", []), lambda entry: SidePrompts(**_without_ids(entry))),
            pair_truncation=_by_id(tables.pop("pairs", []), itemgetter("strategy")),
            models={architecture: tuple(ids) for architecture, ids in tables.pop("models", {}).items()},
        )
        if tables:
            raise TypeError(f"unknown tables in the catalogue: {', '.join(tables)}")
        return read


T = TypeVar("T")


def _by_id(entries: Sequence[Mapping[str, Any]], make: Callable[[Any], T]) -> Mapping[str, T]:
    """Return what each entry makes under each of its ids."""
    made: dict[str, T] = {}
    for entry in entries:
        value = make(entry)
        for model in entry["ids"]:
            if model in made:
                raise ValueError(f"the catalogue names {model!r} twice in one table")
            made[model] = value
    return made


def _without_ids(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "ids"}


@cache
def catalog() -> Catalog:
    """Return the catalogue that comes with Tercet."""
    return Catalog.from_toml(files("tercet.checkpoints").joinpath("catalog.toml").read_text("utf-8"))
