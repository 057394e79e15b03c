"""LanceDB's functions "tercet" and "tercet-multivector": text in, vectors out, rebuilt from a table's schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from lancedb.embeddings import EmbeddingFunction, register
from lancedb.pydantic import MultiVector, Vector
from numpy.typing import NDArray
from pydantic import ConfigDict, PrivateAttr, ValidationError

from tercet.connect import LOCAL, ConnectChoices, connect, reference
from tercet.errors import InvalidInputError
from tercet.types import Inference, Output
from tercet.vector_spec import Encoding, VectorSpec
from tercet_lancedb import known
from tercet_lancedb.columns import VALUE_TYPES
from tercet_lancedb.patience import encoded_patiently

Choice = str | int | float | bool | None

_CONNECT = tuple(ConnectChoices.__annotations__)
_ENCODE = ("model", "dimensions", "output_dtype", "query_prompt", "document_prompt")


class _TercetFunction(EmbeddingFunction):
    """What both functions share; the fields are those of `Encoding` and `ConnectChoices`.

    Attributes:
        inference: "local", a server's URL, or an object that encodes, which is stored as a name for this process alone.
            "$var:name" takes it from the registry's `set_var`.
        patience_s: how long a server that went away is waited for.
        fingerprint: of the model that the table was made with; it comes from the table's schema.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str
    inference: Any = LOCAL
    api_key_env: str | None = None
    device: str | None = None
    precision: str | None = None
    memory_budget: int | str | None = None
    allow_download: bool | None = None
    dimensions: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    patience_s: float = 30.0
    fingerprint: dict[str, dict[str, Choice]] | None = None
    max_retries: int = 0

    _held: Any = PrivateAttr(None)
    encode_fields: ClassVar[tuple[str, ...]] = _ENCODE
    _output: ClassVar[Output]

    @classmethod
    def create(cls, **kwargs: Any) -> Any:
        """Return a function; no model is opened before it is needed.

        Raises:
            InvalidInputError: an unknown field, or a value that is not allowed.
        """
        given = kwargs.get("inference", LOCAL)
        try:
            function = super().create(**{**kwargs, "inference": reference(given)})  # type: ignore[no-untyped-call]
        except ValidationError as error:
            raise InvalidInputError(f"{cls.__name__}: {_told(error)}") from error
        function._held = given  # a stored name leads to the object for as long as somebody holds it
        function._spec()
        return function

    def ndims(self) -> int:
        """Return the width of a stored vector: dimensions, or bytes of packed bits.

        Raises:
            TercetError: the model cannot be opened.
        """
        return known.width(self._connect(), self._spec(), self._output)

    def compute_query_embeddings(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the query's vectors, one in a list, as the query side of the model makes them.

        Raises:
            ModelMismatchError: the model is not the one that filled the table.
            TercetError: as `Engine.encode`.
        """
        query = args[0] if args else kwargs["query"]
        inference = self.check("the table")
        found = encoded_patiently(inference, lambda: self._spec().encode_query(inference, query), self.patience_s)
        return [found[self._output]]

    def compute_source_embeddings(self, texts: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the documents' vectors in order, None for a null.

        Raises:
            ModelMismatchError: the model is not the one that filled the table.
            TercetError: as `Engine.encode`.
        """
        listed = list(self.sanitize_input(texts))
        given = [place for place, text in enumerate(listed) if text is not None]
        rows: list[Any] = [None] * len(listed)
        if given:
            for place, vector in zip(given, self._encode([listed[place] for place in given]), strict=True):
                rows[place] = self._row(vector)
        return rows

    # Even with max_retries = 0, LanceDB puts a bare Exception around whatever is raised; these two pass errors on.
    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return as `compute_query_embeddings`."""
        return self.compute_query_embeddings(*args, **kwargs)

    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return as `compute_source_embeddings`."""
        return self.compute_source_embeddings(*args, **kwargs)

    def safe_model_dump(self) -> dict[str, Any]:
        """Return what a table's schema stores: what the function was created with, and the model's fingerprint.

        Raises:
            TercetError: the model cannot be opened.
        """
        stored = self.fingerprint or known.fingerprint(self._connect(), self._spec())
        return {**self._original_args, "fingerprint": stored}

    def check(self, where: str) -> Inference:
        """Return what encodes, once its vectors are known to be comparable with those stored.

        Args:
            where: what holds the vectors, for the message.

        Raises:
            ModelMismatchError: they are not.
            TercetError: the model cannot be opened.
        """
        inference = self._connect()
        if self.fingerprint is not None:
            known.check(inference, self._spec(), self.fingerprint, where)
        return inference

    def _spec(self) -> VectorSpec:
        encoding = Encoding(**{name: getattr(self, name) for name in self.encode_fields})
        return VectorSpec(**{self._output: encoding})

    def _connect(self) -> Inference:
        choices: Any = {name: getattr(self, name) for name in _CONNECT}
        return connect(self.inference, **choices)

    def _encode(self, texts: list[str]) -> Any:
        inference = self.check("the table")
        return encoded_patiently(inference, lambda: self._spec().encode(inference, texts), self.patience_s)[
            self._output
        ]

    def _row(self, vector: NDArray[Any]) -> Any:
        return vector


@register("tercet")  # type: ignore[no-untyped-call]
class TercetFunction(_TercetFunction):
    """One dense vector a text: float32, float16, or packed bits ("ubinary", searched by hamming distance)."""

    output_dtype: Literal["float32", "float16", "ubinary"] = "float32"

    _output: ClassVar[Output] = "dense"

    def field_type(self) -> Any:
        """Return the vector's type for a `LanceModel`.

        Raises:
            TercetError: the model cannot be opened.
        """
        return Vector(self.ndims(), value_type=VALUE_TYPES[self._output][self.output_dtype])

    def _row(self, vector: NDArray[Any]) -> Any:
        return [_Byte(value) for value in vector.tolist()] if self.output_dtype == "ubinary" else vector


@register("tercet-multivector")  # type: ignore[no-untyped-call]
class TercetMultivectorFunction(_TercetFunction):
    """One vector a token, for late interaction, in a `list<fixed_size_list>` column.

    Rows written through LanceDB's own `add` are right, one token at a time; `embed_table` writes whole matrices.
    """

    output_dtype: Literal["float32", "float16"] = "float32"
    pool_factor: int | None = None

    encode_fields: ClassVar[tuple[str, ...]] = (*_ENCODE, "pool_factor")
    _output: ClassVar[Output] = "multivector"

    def field_type(self) -> Any:
        """Return the vectors' type for a `LanceModel`.

        Raises:
            TercetError: the model cannot be opened.
        """
        return MultiVector(self.ndims(), value_type=VALUE_TYPES[self._output][self.output_dtype])

    def _row(self, vector: NDArray[Any]) -> Any:
        return _TokenVectors(vector, self.ndims())


class _TokenVectors(list[NDArray[Any]]):
    """The token vectors of one text, which claim to be as many as the function has dimensions.

    LanceDB 0.40 puts a null in place of every row whose length is not `ndims()`, even where rows are lists of vectors;
    Arrow, which makes the column afterwards, counts a list's entries itself.
    """

    def __init__(self, tokens: Iterable[NDArray[Any]], claimed: int) -> None:
        super().__init__(tokens)
        self._claimed = claimed

    def __len__(self) -> int:
        return self._claimed


class _Byte:
    """Eight packed bits: an integer to Arrow and no number, since a column of floats would take it without a word."""

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return "packed bits, which need a uint8 column (field_type() of the function gives it), into another"


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']} ({one['input']!r})" for one in error.errors())
