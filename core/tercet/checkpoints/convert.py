"""`python -m tercet.checkpoints.convert SOURCE [TARGET]`: pickled weights to safetensors; no code of theirs is run."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tercet.checkpoints.hub import FILES, PICKLES, Repository
from tercet.checkpoints.weights import pickled_tensors
from tercet.errors import CheckpointError, InvalidInputError, TercetError, UnsupportedModelError

_PICKLE = "pytorch_model.bin"
_INDEX = "pytorch_model.bin.index.json"
_SAFE = "model.safetensors"
_CODE_AND_PICKLES = shutil.ignore_patterns("*.bin", "*.py", "*.pkl", "*.pickle", _INDEX, ".git", ".cache")


def convert(source: Path, target: Path) -> list[Path]:
    """Write a copy of a checkpoint whose weights are safetensors, and return the weight files written.

    All of `source` but code and other pickles is copied, subdirectories and their weights included. Tensors that share
    memory are written under each of their names.

    Raises:
        UnsupportedModelError: `source` holds no pickled weights.
        InvalidInputError: `target` exists already.
        CheckpointError: the weights are damaged, incomplete, or want to run code.
    """
    pickled = {file.parent for name in (_PICKLE, _INDEX) for file in source.rglob(name)}
    directories = sorted(directory for directory in pickled if not any(directory.glob("*.safetensors")))
    if not directories:
        raise UnsupportedModelError(f"{source} holds no {_PICKLE} without safetensors beside it: nothing to convert")
    if target.exists():
        raise InvalidInputError(f"{target} exists already; name a directory that does not")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=_CODE_AND_PICKLES)
    for directory in directories:
        save_file(_separate(_tensors(directory)), partial / directory.relative_to(source) / _SAFE, {"format": "pt"})
    partial.rename(target)
    return [target / directory.relative_to(source) / _SAFE for directory in directories]


def _tensors(directory: Path) -> Mapping[str, Tensor]:
    """Return all tensors that a directory's pickles hold."""
    tensors: dict[str, Tensor] = {}
    for name in _pickles(directory):
        file = directory / name
        if not file.is_file():
            raise CheckpointError(f"{directory / _INDEX} names {name}, which is missing")
        tensors |= pickled_tensors(file)
    return tensors


def _pickles(directory: Path) -> Iterable[str]:
    index = directory / _INDEX
    if not index.is_file():
        return [_PICKLE]
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is no index of weight files: {error!r}") from error


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors contiguous and each in memory of its own, as the format demands."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _located(source: str) -> Path:
    """Return the directory of the source, downloaded when it names a model on the hub."""
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory
    name, _, revision = source.partition("@")
    return Repository(name, revision or None).download((*FILES, *PICKLES), weights=".bin")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 1 after an error message."""
    parser = argparse.ArgumentParser(prog="python -m tercet.checkpoints.convert", description=convert.__doc__)
    parser.add_argument("source", help="a directory, or a model id on the hub")
    parser.add_argument("target", nargs="?", type=Path, help="the directory to write; default NAME-safetensors")
    given = parser.parse_args(arguments)
    name = Path(given.source.partition("@")[0]).name or "model"
    try:
        written = convert(_located(given.source), given.target or Path(f"{name}-safetensors"))
    except TercetError as error:
        print(error, file=sys.stderr)
        return 1
    for file in written:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
