"""What callers give, checked before any model is asked; the engine and its clients refuse it in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidInputError
from tercet.types import OUTPUT_DTYPES, OUTPUTS, TRUNCATIONS, Item, ItemLike, Output, OutputDType, Truncate

ACTIVATIONS = ("identity", "sigmoid")
SCORINGS = ("cross-encoder", "maxsim", "dense", "sparse")
ENCODE_OPTIONS = ("pool_factor", "top_k")
SCORE_OPTIONS = ("scoring", "instruction", "truncate", "activation")


@dataclass(frozen=True, slots=True)
class EncodeParams:
    """How to encode, as `Engine.encode` documents it; `output_types` holds each output once."""

    output_types: tuple[Output, ...] = ("dense",)
    is_query: bool = False
    dimensions: int | None = None
    output_dtype: OutputDType = "float32"
    prompt: str | None = None
    truncate: Truncate = "end"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoreParams:
    """How to score, as `Engine.score` documents it."""

    top_k: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def encode_params(
    output_types: Sequence[str] | str = ("dense",),
    is_query: bool = False,
    dimensions: int | None = None,
    output_dtype: str = "float32",
    prompt: str | None = None,
    truncate: str = "end",
    options: Mapping[str, Any] | None = None,
) -> EncodeParams:
    """Return how to encode, every value checked.

    Raises:
        InvalidInputError: a value is outside what is allowed; the message says what is.
    """
    names = [output_types] if isinstance(output_types, str) else list(_iterable(output_types, "output_types"))
    if not names:
        raise InvalidInputError(f"output_types is empty; choose from {', '.join(OUTPUTS)}")
    for name in names:
        _one_of("output_types", name, OUTPUTS)
    _one_of("output_dtype", output_dtype, OUTPUT_DTYPES)
    _one_of("truncate", truncate, TRUNCATIONS)
    if not isinstance(is_query, bool):
        raise InvalidInputError(f"is_query must be True or False, not {is_query!r}")
    if prompt is not None and not isinstance(prompt, str):
        raise InvalidInputError(f"prompt must be a string: a prompt's name or its text, not {type(prompt).__name__}")
    if prompt is not None:
        check_text(prompt, "prompt")
    known = _known_options(options, ENCODE_OPTIONS)
    for name in ENCODE_OPTIONS:
        positive(f"options[{name!r}]", known.get(name))
    return EncodeParams(
        output_types=tuple(dict.fromkeys(names)),  # type: ignore[arg-type]
        is_query=is_query,
        dimensions=positive("dimensions", dimensions),
        output_dtype=output_dtype,  # type: ignore[arg-type]
        prompt=prompt,
        truncate=truncate,  # type: ignore[arg-type]
        options=known,
    )


def score_params(top_k: int | None = None, options: Mapping[str, Any] | None = None) -> ScoreParams:
    """Return how to score, every value checked.

    Raises:
        InvalidInputError: a value is outside what is allowed; the message says what is.
    """
    known = _known_options(options, SCORE_OPTIONS)
    if (scoring := known.get("scoring")) is not None:
        _one_of("options['scoring']", scoring, SCORINGS)
    if (activation := known.get("activation")) is not None:
        _one_of("options['activation']", activation, ACTIVATIONS)
    _one_of("options['truncate']", known.get("truncate", "end"), TRUNCATIONS)
    instruction = known.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InvalidInputError(f"options['instruction'] must be a string, not {type(instruction).__name__}")
    if instruction is not None:
        check_text(instruction, "options['instruction']")
    return ScoreParams(positive("top_k", top_k), known)


def model_name(model: Any) -> str:
    """Return the value if it can be a model's name.

    Raises:
        InvalidInputError: no text, or an empty one.
    """
    if not isinstance(model, str) or not model:
        raise InvalidInputError(f"model must be a hub id, id@revision, a directory or 'bm25', not {model!r}")
    return model


def as_items(items: Any) -> tuple[list[Any], bool]:
    """Return the items as a list, and whether it was a single one.

    Raises:
        InvalidInputError: neither an item nor a sequence of items, or an empty sequence.
    """
    if isinstance(items, get_args(ItemLike)):
        return [items], True
    listed = list(_iterable(items, "items"))
    if not listed:
        raise InvalidInputError("items is empty; give at least one text or Item")
    return listed, False


def as_item(value: Any, index: int | str) -> Item:
    """Return one item; strings become items.

    Raises:
        InvalidInputError: not a string or Item, or an Item with wrong fields; the message names its index.
    """
    item = Item(text=value) if isinstance(value, str) else value
    if not isinstance(item, Item):
        raise InvalidInputError(f"item {index} is a {type(value).__name__}; give a string or an Item")
    if (item.text is None) == (item.input_ids is None):
        raise InvalidInputError(f"item {index} needs either text or input_ids, and not both")
    if item.text is not None and not isinstance(item.text, str):
        raise InvalidInputError(f"item {index}: text is a {type(item.text).__name__}; give a string")
    return item


def as_query(value: Any) -> Item:
    """Return the query of a score call.

    Raises:
        InvalidInputError: not a string or Item, no Unicode, or token ids that are no integers.
    """
    query = as_item(value, "query")
    if query.text is not None:
        check_text(query.text, "query")
    else:
        token_ids(query.input_ids, "query")
    return query


def token_ids(values: Any, index: int | str) -> NDArray[np.int64]:
    """Return an item's own token ids as (n,) int64.

    Raises:
        InvalidInputError: anything but one or more integers; the message names the item's index.
    """
    try:
        ids = np.asarray(values)
    except ValueError:  # rows of unequal length
        ids = np.empty(0)
    if ids.ndim != 1 or not len(ids) or ids.dtype.kind not in "iu":
        raise InvalidInputError(f"item {index}: input_ids must be a non-empty sequence of integers")
    return ids.astype(np.int64)


def check_text(text: str, name: str) -> None:
    """Raise unless a text is Unicode.

    Raises:
        InvalidInputError: it holds half a surrogate pair, as badly decoded texts do.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} has a lone surrogate U+{ord(text[error.start]):04X} at position {error.start}, which is no "
            "Unicode text; drop it, for instance by text.encode('utf-8', 'ignore').decode()"
        ) from error


def positive(name: str, value: Any) -> int | None:
    """Return the value if it is None or a whole number from 1.

    Raises:
        InvalidInputError: anything else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidInputError(f"{name} must be a whole number from 1, not {value!r}")
    return value


def seconds(name: str, value: Any) -> float | None:
    """Return the value if it is None or a number above 0.

    Raises:
        InvalidInputError: anything else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise InvalidInputError(f"{name} must be a number of seconds above 0, or None, not {value!r}")
    return value


def _known_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> Mapping[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidInputError(f"options must be a mapping, not {type(options).__name__}")
    if unknown := [name for name in options if name not in known]:
        raise InvalidInputError(f"unknown option {unknown[0]!r}; known here: {', '.join(known)}")
    return options


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InvalidInputError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def _iterable(value: Any, name: str) -> Iterable[Any]:
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidInputError(f"{name} must be a string, an Item or a sequence of them, not {type(value).__name__}")
    return value
