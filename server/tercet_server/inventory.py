"""`inventory`: the models that this machine has, and those that are known to work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tercet.checkpoints.catalog import catalog
from tercet.checkpoints.hub import Repository

Origin = Literal["built in", "package", "cache"]


@dataclass(frozen=True, slots=True)
class Known:
    """A model that can be named.

    Attributes:
        architecture: None where only the checkpoint's own files say.
        origin: where its files are; None where they would have to be downloaded.
        revision: of these files. size_bytes: of a copy in the hub cache.
    """

    id: str
    architecture: str | None
    origin: Origin | None = None
    revision: str | None = None
    size_bytes: int | None = None


def inventory(cache_dir: Path | None) -> list[Known]:
    """Return the models that are here, then the rest of the catalogue, each by name; nothing is downloaded."""
    here = {model.id: model for model in [Known("bm25", None, "built in"), *stored(cache_dir), *_packaged()]}
    rest = [Known(model, architecture) for model, architecture in _architectures().items() if model not in here]
    return [*sorted(here.values(), key=_name), *sorted(rest, key=_name)]


def hub_cache(cache_dir: Path | None) -> Path:
    """Return the hub cache's directory, which may not exist."""
    from huggingface_hub import constants

    return cache_dir or Path(constants.HF_HUB_CACHE)


def stored(cache_dir: Path | None) -> list[Known]:
    """Return the models in the hub cache whose copies are complete."""
    from huggingface_hub import scan_cache_dir

    directory = hub_cache(cache_dir)
    if not directory.is_dir():
        return []
    architectures = _architectures()
    found = []
    for repository in scan_cache_dir(directory).repos:
        model = repository.repo_id
        snapshot = Repository(model, cache_dir=directory).cached() if repository.repo_type == "model" else None
        if snapshot is not None:
            size = repository.size_on_disk
            found.append(Known(model, architectures.get(model), "cache", snapshot.name, size))
    return found


def _packaged() -> Iterator[Known]:
    architectures = _architectures()
    for package in {package.ids[0]: package for package in catalog().packages.values()}.values():
        if find_spec(package.module) is not None:
            revision = f"{package.distribution}=={version(package.distribution)}"
            yield Known(package.ids[0], architectures.get(package.ids[0]), "package", revision)


def _architectures() -> dict[str, str]:
    return {model: architecture for architecture, models in catalog().models.items() for model in models}


def _name(model: Known) -> str:
    return model.id.lower()
