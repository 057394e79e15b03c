"""The fingerprint of a checkpoint: equal for equal vectors, whatever the checkpoint is called and wherever it lies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tercet.checkpoints.spec import ModelSpec

# Where a checkpoint lies and what it is called decides no vector, nor do these keys of `config.json`.
_NAMES = ("id", "revision", "directory", "notes", "size_bytes", "config")
_IDLE_KEYS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_WHOLE = 1 << 20  # files up to this size are read in whole
_SAMPLE = 512  # bytes read of each tensor: a fine-tune changes every value of the tensors that it touches


def fingerprint(spec: ModelSpec) -> str:
    """Return 32 hex digits over everything that decides the vectors, read in milliseconds.

    Of weights it reads names, shapes and some bytes out of the middle of each tensor, not all of them: enough to tell
    models and trainings apart, no protection against forgery.
    """
    known = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name not in _NAMES}
    known["config"] = {key: value for key, value in spec.config.items() if key not in _IDLE_KEYS}
    known["tokenizer"] = [spec.directory / name for name in _TOKENIZER_FILES if (spec.directory / name).is_file()]
    text = json.dumps(_plain(known), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """Return a value of plain types in which files are what they hold."""
    match value:
        case Path():
            return _of_file(value)
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"type": type(value).__name__, **fields}
        case _:
            return value


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start, length in _extents(path, file):
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()


def _extents(path: Path, file: Any) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of what is read of a file: all, or of large safetensors the header and samples."""
    size = path.stat().st_size
    if path.suffix != ".safetensors" or size <= _WHOLE:
        yield 0, size
        return
    length = 8 + struct.unpack("<Q", file.read(8))[0]
    file.seek(8)
    header = json.loads(file.read(length - 8))
    yield 0, length
    for name in sorted(header.keys() - {"__metadata__"}):
        first, last = header[name]["data_offsets"]
        middle = length + (first + last) // 2
        yield max(length + first, middle - _SAMPLE // 2), min(_SAMPLE, last - first)
