"""`VectorSource`: one kind of vector, from what is persisted with a collection to what encodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tercet.connect import LOCAL, ConnectChoices, connect, reference
from tercet.errors import InvalidInputError, ModelMismatchError, TercetError
from tercet.types import Inference, Output
from tercet.vector_spec import Encoding, Fingerprint, VectorSpec, check_fingerprint

_CHOICES = tuple(ConnectChoices.__annotations__)


class VectorSource:
    """What both of Chroma's kinds of functions are made of; making one does no work, since Chroma does so often.

    Args:
        output: the kind of vector.
        encoding: how it is made.
        inference: "local", a server's URL, or an object that encodes.
        choices: how to reach it, as of `connect`.
        stored: the fingerprint that came with a collection.
        rebuilt: whether this was read from a collection, whose vectors those made here have to fit.
    """

    def __init__(
        self,
        output: Output,
        encoding: Encoding,
        inference: Inference | str = LOCAL,
        choices: ConnectChoices | None = None,
        stored: Fingerprint | None = None,
        rebuilt: bool = False,
    ) -> None:
        self.output, self.encoding = output, encoding
        self._spec = VectorSpec(**{output: encoding})
        self._inference, self._choices = inference, choices or {}
        self._stored, self._rebuilt = stored, rebuilt
        self._checked = self._failed = False

    @classmethod
    def from_config(cls, output: Output, config: Mapping[str, Any]) -> VectorSource:
        """Return what `config` was written by; nothing is reached yet."""
        choices: Any = {name: config[name] for name in _CHOICES if config.get(name) is not None}
        encoding = Encoding(**{name: config[name] for name in Encoding.__slots__ if name in config})
        inference = config.get("inference", LOCAL)
        return cls(output, encoding, inference, choices, config.get("fingerprint"), rebuilt=True)

    def config(self) -> dict[str, Any]:
        """Return all that is needed to make this again, as JSON values; no secret is among them.

        The fingerprint is asked for once. Where it cannot be had, a warning says so and None is stored: Chroma would
        swallow an exception here and store nothing at all.
        """
        config = {**asdict(self.encoding), "inference": reference(self._inference)}
        return {**config, **{name: self._choices.get(name) for name in _CHOICES}, "fingerprint": self._known()}

    def fingerprint(self) -> Fingerprint:
        """Return what decides the vectors' values, held against what the collection was filled with.

        Raises:
            ModelMismatchError: the collection was filled by another model, or nobody knows by which.
            TercetError: the model cannot be described.
        """
        self.inference()
        assert self._stored is not None
        return self._stored

    def inference(self) -> Inference:
        """Return what encodes, checked against the fingerprint once.

        Raises:
            ModelMismatchError: as `fingerprint`.
            TercetError: the model cannot be described.
        """
        inference = connect(self._inference, **self._choices)
        if not self._checked:
            if self._rebuilt and self._stored is None:
                raise unknown(self.encoding.model)
            now = self._spec.fingerprint(inference)
            if self._stored is not None:
                check_fingerprint(self._stored, now, "this collection")
            self._stored, self._checked = self._stored or now, True
        return inference

    def encode(self, texts: Sequence[str], is_query: bool) -> Any:
        """Return the texts' vectors as one column.

        Raises:
            TercetError: as `Engine.encode` and `inference`.
        """
        keywords = self.encoding.choices([self.output], is_query)
        return getattr(self.inference().encode(self.encoding.model, list(texts), **keywords), self.output)

    def _known(self) -> Fingerprint | None:
        if self._stored is None and not self._rebuilt and not self._failed:
            try:
                self.inference()
            except (TercetError, ImportError) as error:
                self._failed = True
                warnings.warn(
                    f"{self.encoding.model} could not be described ({error}); its fingerprint is not stored, and the "
                    "collection will not be opened without one: create it again once the model can be reached",
                    stacklevel=2,
                )
        return self._stored


def unknown(model: str) -> ModelMismatchError:
    """Return the error of a collection that was stored without a fingerprint."""
    return ModelMismatchError(
        f"this collection was created while {model} could not be described, so nothing says which model it belongs to. "
        "If it is that one, store it: collection.modify(configuration={'embedding_function': …}) with a new function"
    )


def check_update(output: Output, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise unless a collection may go over from one configuration to the other; how a model is reached may change.

    Raises:
        ModelMismatchError: the vectors would differ: another model, other dimensions, type or prompts.
    """
    before, after = (VectorSource.from_config(output, config) for config in (old, new))
    if old.get("fingerprint") and new.get("fingerprint"):
        check_fingerprint(old["fingerprint"], new["fingerprint"], "this collection")
    elif before.encoding != after.encoding:
        raise ModelMismatchError(
            f"this collection was filled with {before.encoding}, not {after.encoding}; their vectors cannot be "
            "compared. Keep model, dimensions and prompts, or fill a new collection"
        )


def veto_update(output: Output, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise as `check_update`, and say how to undo what `collection.modify` has stored before it asked.

    Raises:
        ModelMismatchError: the vectors would differ.
    """
    try:
        check_update(output, old, new)
    except ModelMismatchError as error:
        raise ModelMismatchError(
            f"{error.message}. Chroma has stored the new function before it asked; put the old one back with "
            "collection.modify(configuration={'embedding_function': collection.configuration['embedding_function']})"
        ) from error


def check_config(config: Mapping[str, Any]) -> None:
    """Raise unless a function can be made from a configuration.

    Raises:
        InvalidInputError: it names no model.
    """
    if not isinstance(config.get("model"), str):
        raise InvalidInputError(f"the configuration {dict(config)} names no model; it needs 'model' at least")
