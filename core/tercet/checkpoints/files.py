"""A checkpoint's small files, read so that whatever is wrong with them is said with the file's name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tercet.checkpoints.spec import hidden_size
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import CheckpointError, UnsupportedModelError

T = TypeVar("T")

# What sentence-transformers has called the settings of its Transformer module.
_TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class Settings(Mapping[str, Any]):
    """One JSON object from a file; a null counts as absent."""

    path: Path
    raw: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        if self.raw.get(key) is None:
            raise KeyError(key)
        return self.raw[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key, value in self.raw.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def typed(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return the value, or the default where there is none.

        Raises:
            CheckpointError: the value is of another type, or missing without a default.
        """
        value = self.get(key, default)
        if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
            found = f"has {key!r}: {value!r}" if key in self else f"lacks {key!r}"
            raise CheckpointError(f"{self.path} {found}; expected a value of type {kind.__name__}")
        return value

    def one_of(self, key: str, known: Mapping[str, T], default: str | None = None) -> T:
        """Return what stands under the value in `known`.

        Raises:
            UnsupportedModelError: the value is not known; the message lists those that are.
        """
        name = self.typed(key, str, default)
        if name not in known:
            raise UnsupportedModelError(f"{self.path} has {key!r}: {name!r}; known: {', '.join(sorted(known))}")
        return known[name]

    def unknown(self, key: str, known: str) -> UnsupportedModelError:
        """Return the error for a value that Tercet cannot work with."""
        return UnsupportedModelError(f"{self.path} has {key!r}: {self.get(key)!r}; known: {known}")


def read_settings(path: Path, *, required: bool = False) -> Settings:
    """Return a file's JSON object, an empty one where there is no such file and none is required.

    Raises:
        CheckpointError: the file is missing though required, unreadable or no JSON object.
    """
    if not required and not path.is_file():
        return Settings(path, {})
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return Settings(path, value)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        CheckpointError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


@dataclass(frozen=True)
class Files:
    """The files of one checkpoint.

    Attributes:
        id: as the caller named the model, for messages.
        root: where `modules.json` is, if there is one.
        folder: where `config.json`, the tokeniser and the backbone's weights are.
    """

    id: str
    root: Path
    folder: Path

    @cached_property
    def config(self) -> Settings:
        """`config.json` of the backbone."""
        return read_settings(self.folder / "config.json", required=True)

    @cached_property
    def sentence_transformers(self) -> Settings:
        """What `config_sentence_transformers.json` says of the whole model."""
        return read_settings(self.root / "config_sentence_transformers.json")

    @cached_property
    def transformer(self) -> Settings:
        """What sentence-transformers says of its Transformer module (lengths, lower-casing)."""
        candidates = (self.folder / name for name in _TRANSFORMER_SETTINGS)
        return read_settings(
            next((path for path in candidates if path.is_file()), self.folder / _TRANSFORMER_SETTINGS[0])
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokeniser."""
        return Tokenizer.from_directory(self.folder)

    @property
    def model_inputs(self) -> Collection[str]:
        """What the tokeniser hands to the model; token types too, unless its settings list inputs without them."""
        settings = read_settings(self.folder / "tokenizer_config.json")
        return settings.typed("model_input_names", list, ["input_ids", "token_type_ids"])

    @property
    def architecture(self) -> str:
        """The first of `config["architectures"]`.

        Raises:
            CheckpointError: there is none.
        """
        names = self.config.typed("architectures", list, [])
        if not names or not isinstance(names[0], str):
            raise CheckpointError(
                f"{self.config.path} names no architecture; expected 'architectures': [\"BertModel\"]"
            )
        return names[0]

    @property
    def hidden_size(self) -> int:
        """Width of the token states."""
        try:
            return hidden_size(self.config)
        except (StopIteration, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.config.path} names no hidden_size") from error

    @property
    def vocab_size(self) -> int:
        """Rows of the word table."""
        return self.config.typed("vocab_size", int)

    def weights(self) -> tuple[Path, ...]:
        """Return the backbone's safetensors files.

        Raises:
            CheckpointError: there are none, or a shard is missing.
        """
        single = self.folder / "model.safetensors"
        if single.is_file():
            return (single,)
        index = read_settings(self.folder / "model.safetensors.index.json")
        shards = sorted(set(index.typed("weight_map", dict, {}).values()))
        missing = [name for name in shards if not (self.folder / name).is_file()]
        if missing or not shards:
            wanted = ", ".join(missing) or "model.safetensors"
            raise CheckpointError(f"{self.folder} lacks {wanted}; download the model again")
        return tuple(self.folder / name for name in shards)
