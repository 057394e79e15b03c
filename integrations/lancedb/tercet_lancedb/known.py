"""What is known of a model, asked once of each engine or server: LanceDB rebuilds functions several times a call."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from tercet.types import Inference, ModelInfo, Output
from tercet.vector_spec import Fingerprint, VectorSpec, check_fingerprint

T = TypeVar("T")

_BITS_PER_BYTE = 8

_known: WeakKeyDictionary[Inference, dict[Hashable, Any]] = WeakKeyDictionary()


def describe(inference: Inference, model: str) -> ModelInfo:
    """Return what `Inference.describe` says.

    Raises:
        TercetError: as there.
    """
    return _once(inference, ("model", model), lambda: inference.describe(model))


def fingerprint(inference: Inference, spec: VectorSpec) -> dict[str, dict[str, Any]]:
    """Return what `VectorSpec.fingerprint` says.

    Raises:
        TercetError: as there.
    """
    return _once(inference, ("fingerprint", spec), lambda: spec.fingerprint(inference))


def check(inference: Inference, spec: VectorSpec, stored: Fingerprint, where: str) -> None:
    """Raise unless the models in use make vectors that can be compared with those stored.

    Raises:
        ModelMismatchError: they do not; the message says what to do.
    """
    check_fingerprint(stored, fingerprint(inference, spec), where)


def width(inference: Inference, spec: VectorSpec, output: Output) -> int:
    """Return how many values a stored vector of this output has: d, or d / 8 bytes of packed bits.

    Raises:
        TercetError: the model cannot be opened or has no such output.
    """
    fingerprint(inference, spec)  # says in its own words when the model has no such output
    encoding = spec.encodings[output]
    dims = encoding.dimensions or describe(inference, encoding.model).dims[output]
    return dims // _BITS_PER_BYTE if encoding.output_dtype == "ubinary" else dims


def _once(inference: Inference, key: Hashable, ask: Callable[[], T]) -> T:
    answers = _known.setdefault(inference, {})
    if key not in answers:
        answers[key] = ask()
    found: T = answers[key]
    return found
