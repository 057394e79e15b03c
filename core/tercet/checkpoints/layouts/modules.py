"""`modules.json`: sentence-transformers' list of modules, under the names of every release so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.checkpoints.files import Settings, read_json, read_settings
from tercet.errors import CheckpointError, UnsupportedModelError

_PACKAGES = ("sentence_transformers.", "pylate.")
_ALIASES = {"MLMTransformer": "Transformer", "Asym": "Router", "IDF": "SparseStaticEmbedding"}
KINDS = frozenset(
    [
        "Transformer",
        "Pooling",
        "Dense",
        "LayerNorm",
        "Normalize",
        "Dropout",
        "SpladePooling",
        "SparseStaticEmbedding",
        "MultiVectorMask",
        "LogitScore",
        "Router",
    ]
)


@dataclass(frozen=True)
class Module:
    """One module: its kind (the class name, one of `KINDS`), the type as written, and its folder."""

    kind: str
    type: str
    folder: Path

    @property
    def config(self) -> Settings:
        """Its own settings."""
        return read_settings(self.folder / "config.json")

    @property
    def weights(self) -> Path:
        """Its weights' file.

        Raises:
            UnsupportedModelError: they are stored as a pickle.
            CheckpointError: there are none.
        """
        path = self.folder / "model.safetensors"
        if path.is_file():
            return path
        if (self.folder / "pytorch_model.bin").is_file():
            raise UnsupportedModelError(
                f"{self.folder} has its weights as a pickle only; `python -m tercet.checkpoints.convert` makes "
                "safetensors of it"
            )
        raise CheckpointError(f"{path} is missing; the module {self.type} needs it")


def read_modules(root: Path) -> tuple[Module, ...]:
    """Return the modules that `modules.json` lists, none where there is no such file.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedModelError: a module's type is not known.
    """
    path = root / "modules.json"
    if not path.is_file():
        return ()
    entries = read_json(path)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{path}: expected a list of modules, each an object with 'type' and 'path'")
    return tuple(module_at(path, root, entry.get("type"), entry.get("path")) for entry in entries)


def module_at(source: Path, root: Path, name: Any, folder: Any) -> Module:
    """Return the module that an entry of `source` describes.

    Raises:
        CheckpointError: the type or path is missing, or the path leads out of the checkpoint.
        UnsupportedModelError: the type is not known.
    """
    if not isinstance(name, str) or not isinstance(folder, str):
        raise CheckpointError(f"{source}: a module has type {name!r} and path {folder!r}, both must be texts")
    inside = (root / folder).resolve().is_relative_to(root.resolve())
    if Path(folder).is_absolute() or ".." in Path(folder).parts or not inside:
        raise CheckpointError(f"{source}: the path {folder!r} leads out of the checkpoint")
    short = name.rsplit(".", 1)[-1]
    kind = _ALIASES.get(short, short)
    if not name.startswith(_PACKAGES) or kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise UnsupportedModelError(
            f"{source} lists a module of type {name!r}; known types of sentence_transformers: {known}"
        )
    return Module(kind, name, root / folder)


def find(modules: Iterable[Module], kind: str) -> Module | None:
    """Return the first module of a kind."""
    return next((module for module in modules if module.kind == kind), None)


def check_order(modules: Sequence[Module], allowed: Sequence[str], source: Path) -> None:
    """Check that the modules after the first are of the allowed kinds.

    Raises:
        UnsupportedModelError: another one is among them.
    """
    for module in modules[1:]:
        if module.kind not in allowed:
            listed = ", ".join(m.kind for m in modules)
            raise UnsupportedModelError(
                f"{source} lists {listed}; after {modules[0].kind}, {allowed[0]} goes with {', '.join(allowed)} only"
            )
