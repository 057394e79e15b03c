"""`open_checkpoint`: from a model id to a `Checkpoint`, without reading any weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path

import torch

from tercet.checkpoints import load
from tercet.checkpoints.bm25 import Bm25Checkpoint, is_bm25
from tercet.checkpoints.checkpoint import Checkpoint, EncodeSettings, PairSettings, Prepared
from tercet.checkpoints.fingerprint import fingerprint
from tercet.checkpoints.hub import resolve
from tercet.checkpoints.processor import Processor
from tercet.checkpoints.read import read_files, spec_of
from tercet.checkpoints.spec import ModelSpec
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.nn.model import Model
from tercet.types import Item


def open_checkpoint(
    model_id: str, *, allow_download: bool | Callable[[str], bool] = False, cache_dir: Path | None = None
) -> Checkpoint:
    """Return the model's host side; files are resolved as `hub.resolve` says.

    Args:
        model_id: as `Engine.encode`.
        allow_download: whether files may be fetched, or what says so of each id.
        cache_dir: the hub's cache.

    Raises:
        ModelNotFoundError, UnsupportedModelError, ModelLoadError: as `hub.resolve`.
        CheckpointError: its files are missing, damaged or contradict each other.
        UnsupportedModelError: its files describe what Tercet cannot run; the message lists what it can.
    """
    if is_bm25(model_id):
        return Bm25Checkpoint(model_id)
    allowed = allow_download(model_id) if callable(allow_download) else allow_download
    location = resolve(model_id, allow_download=allowed, cache_dir=cache_dir)
    name = model_id if location.origin == "directory" else model_id.partition("@")[0]
    files, modules, table = read_files(name, location.directory)
    spec = spec_of(files, modules, table, location.revision)
    load.family_of(spec)
    return StoredCheckpoint(spec, Processor(spec, files.tokenizer))


class StoredCheckpoint:
    """A `Checkpoint` whose weights lie in files. Thread-safe."""

    def __init__(self, spec: ModelSpec, processor: Processor) -> None:
        self._spec = spec
        self._processor = processor
        self._size_bytes = cache(lambda dtype: load.size_bytes(spec, dtype))

    @property
    def spec(self) -> ModelSpec:
        """What the files say."""
        return self._spec

    @cached_property
    def fingerprint(self) -> str:
        """What is equal for equal vectors, read from the files on first use."""
        return fingerprint(self._spec)

    @property
    def tokenizer(self) -> Tokenizer:
        """What splits its texts."""
        return self._processor.tokenizer

    def encode(self, items: Sequence[Item], settings: EncodeSettings, first: int = 0) -> list[Prepared]:
        """Return one prepared sequence (or ready answer) per item; see `Checkpoint.encode`."""
        return self._processor.encode(items, settings, first)

    def pairs(self, query: Item, documents: Sequence[Item], settings: PairSettings, first: int = 0) -> list[Prepared]:
        """Return one prepared sequence per pair; see `Checkpoint.pairs`."""
        return self._processor.pairs(query, documents, settings, first)

    def tokens(self, ids: Sequence[int], text: str = "") -> list[str | None]:
        """Return the vocabulary's entry of each id; see `Checkpoint.tokens`."""
        return [self._processor.tokenizer.id_to_token(index) for index in ids]

    def size_bytes(self, dtype: torch.dtype) -> int:
        """Return the bytes that the weights take in `dtype`; the model is laid out without memory to count them."""
        return self._size_bytes(dtype)

    def load(self, device: torch.device, dtype: torch.dtype, cores: int = 1) -> Model:
        """Return the model with its weights on the device; see `Checkpoint.load`."""
        return load.load(self._spec, device, dtype, cores)
