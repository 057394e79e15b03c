"""`VectorSpec`: which models make a collection's vectors, and what two sets of vectors need to be comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tercet.errors import InvalidInputError, ModelMismatchError, UnsupportedOperationError
from tercet.inputs import encode_params
from tercet.threads import side_by_side
from tercet.types import Embeddings, EncodeChoices, Inference, Output, OutputDType

Fingerprint = Mapping[str, Mapping[str, Any]]  # by output; plain values alone, so that it can be stored as JSON


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one kind of vector is made, the document's and the query's.

    Attributes:
        model: hub id, `id@revision`, local directory, "bm25", or a name that the server knows.
        dimensions: keep the first so many, renormalised (Matryoshka).
        output_dtype: of dense and multivector values.
        query_prompt, document_prompt: a prompt's name or text; None takes the model's own for that side.
        pool_factor: merge a document's token vectors to about one in so many.
        top_k: keep the largest so many weights of a document's sparse vector.
    """

    model: str
    dimensions: int | None = None
    output_dtype: OutputDType = "float32"
    query_prompt: str | None = None
    document_prompt: str | None = None
    pool_factor: int | None = None
    top_k: int | None = None

    def choices(self, outputs: Sequence[Output], is_query: bool) -> EncodeChoices:
        """Return the arguments of `encode` for one side."""
        options = {"pool_factor": self.pool_factor, "top_k": self.top_k}
        return {
            "output_types": outputs,
            "is_query": is_query,
            "dimensions": self.dimensions,
            "output_dtype": self.output_dtype,
            "prompt": self.query_prompt if is_query else self.document_prompt,
            "options": {} if is_query else {name: value for name, value in options.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """The vectors of a collection, each made by a model; a model's name alone stands for its `Encoding`.

    >>> VectorSpec(dense="sentence-transformers/all-MiniLM-L6-v2", sparse="bm25").outputs
    ('dense', 'sparse')

    Raises:
        InvalidInputError: no vector, or one that cannot be made so.
    """

    dense: Encoding | str | None = None
    sparse: Encoding | str | None = None
    multivector: Encoding | str | None = None

    def __post_init__(self) -> None:
        if not self.outputs:
            raise InvalidInputError("a VectorSpec needs a model for at least one of dense, sparse and multivector")
        for output, encoding in self.encodings.items():
            encode_params(**encoding.choices([output], is_query=False))

    @property
    def encodings(self) -> dict[Output, Encoding]:
        """How each vector is made, by output."""
        given: dict[Output, Any] = {"dense": self.dense, "sparse": self.sparse, "multivector": self.multivector}
        return {
            output: Encoding(encoding) if isinstance(encoding, str) else encoding
            for output, encoding in given.items()
            if encoding is not None
        }

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The kinds of vectors."""
        return tuple(self.encodings)

    def encode(self, inference: Inference, texts: Sequence[str]) -> dict[Output, Any]:
        """Return documents' vectors as columns, by output: (n, d), a `SparseBatch`, a `MultiVectorBatch`.

        Outputs that one model makes in the same way come from one forward pass; different models run side by side.

        Raises:
            TercetError: as `Engine.encode`.
        """
        columns: dict[Output, Any] = {}
        for outputs, embeddings in self._run(inference, list(texts), is_query=False):
            columns |= {output: getattr(embeddings, output) for output in outputs}
        return columns

    def encode_query(self, inference: Inference, text: str) -> dict[Output, Any]:
        """Return a query's vectors by output: (d,), a `SparseVector`, (tokens, d).

        Raises:
            TercetError: as `Engine.encode`.
        """
        found: dict[Output, Any] = {}
        for outputs, embeddings in self._run(inference, [text], is_query=True):
            found |= {output: embeddings[0][output] for output in outputs}
        return found

    def fingerprint(self, inference: Inference) -> dict[str, dict[str, Any]]:
        """Return what decides the vectors' values, to be stored with them and held against `check_fingerprint`.

        Raises:
            TercetError: a model cannot be opened.
            UnsupportedOperationError: a model has no such output.
        """
        found: dict[str, dict[str, Any]] = {}
        for output, encoding in self.encodings.items():
            info = inference.describe(encoding.model)
            if output not in info.outputs:
                has = ", ".join(info.outputs) or "none"
                raise UnsupportedOperationError(f"{encoding.model} has no {output!r} output; it has: {has}")
            choices = {name: value for name, value in asdict(encoding).items() if name != "model"}
            found[output] = {"model": info.id, "revision": info.revision, "fingerprint": info.fingerprint, **choices}
        return found

    def _run(
        self, inference: Inference, texts: list[str], is_query: bool
    ) -> Iterator[tuple[Sequence[Output], Embeddings]]:
        def run(encoding: Encoding, outputs: Sequence[Output]) -> Embeddings:
            return inference.encode(encoding.model, texts, **encoding.choices(outputs, is_query))

        shared = self._shared()
        if len(shared) == 1:
            yield shared[0][1], run(*shared[0])
            return
        for place, embeddings in side_by_side([partial(run, *one) for one in shared], len(shared)):
            yield shared[place][1], embeddings

    def _shared(self) -> list[tuple[Encoding, list[Output]]]:
        """Return the encodings, each once, with the outputs that it makes."""
        shared: dict[Encoding, list[Output]] = {}
        for output, encoding in self.encodings.items():
            shared.setdefault(encoding, []).append(output)
        return list(shared.items())


# What may differ without changing any vector: how a model is called.
_NAMES = ("model", "revision")


def check_fingerprint(stored: Fingerprint, now: Fingerprint, where: str) -> None:
    """Raise unless vectors made now can be compared with those stored; a model may have got another name.

    Args:
        stored: the fingerprint that came with the stored vectors.
        now: that of the models in use.
        where: what holds the vectors, for the message: "collection 'docs'".

    Raises:
        ModelMismatchError: they cannot; the message says what to do.
    """
    for output in now:
        if output not in stored:
            raise ModelMismatchError(
                f"{where} has no {output} vectors; it has {', '.join(stored)}. Fill a new one to add some"
            )
        old, new = stored[output], now[output]
        changed = [name for name in new if name not in _NAMES and old.get(name) != new[name]]
        if changed:
            told = ", ".join(f"{name}: {_short(old.get(name))} then, {_short(new[name])} now" for name in changed)
            raise ModelMismatchError(
                f"{where} holds {output} vectors of {_called(old)}, which those of {_called(new)} cannot be compared "
                f"with ({told}). Use the model it was filled with, or fill a new one"
            )


def _called(one: Mapping[str, Any]) -> str:
    revision = f"@{one['revision']}" if one.get("revision") else ""
    return f"{one.get('model')}{revision}"


def _short(value: Any) -> str:
    return str(value)[:12]
