"""`TercetEmbeddingFunction`: dense vectors for Chroma's collections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack, cast

from chromadb.api.collection_configuration import CollectionConfiguration
from chromadb.api.models.Collection import Collection
from chromadb.api.types import EMBEDDING_KEY, Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import register_embedding_function

from tercet.connect import LOCAL, ConnectChoices
from tercet.errors import InvalidInputError
from tercet.types import Inference, OutputDType
from tercet.vector_spec import Encoding, Fingerprint
from tercet_chroma.source import VectorSource, check_config, check_update, unknown, veto_update

_DTYPES = ("float32", "float16")  # Chroma refuses bytes and bits


@register_embedding_function
class TercetEmbeddingFunction(EmbeddingFunction[Documents]):
    """Dense vectors of a model, documents and queries each encoded as what they are.

    Persisted with the collection and rebuilt when it is opened again, in any process that has imported this package;
    on first use the model is held against the fingerprint that was stored. Making one does no work.

    Args:
        model: hub id, `id@revision`, local directory, or a name that the server knows.
        inference: "local" for the engine in this process, a server's URL, or an object that encodes.
        dimensions: keep the first so many, renormalised (Matryoshka).
        output_dtype: "float32" or "float16".
        query_prompt: a prompt's name or text; None takes the model's own for queries.
        document_prompt: the same for documents.
        choices: how to reach it: `device`, `precision`, … or `api_key_env`; all may differ when it is opened again.

    Raises:
        InvalidInputError: a value that no model could take.
    """

    def __init__(
        self,
        model: str,
        inference: Inference | str = LOCAL,
        *,
        dimensions: int | None = None,
        output_dtype: OutputDType = "float32",
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        **choices: Unpack[ConnectChoices],
    ) -> None:
        encoding = Encoding(model, dimensions, output_dtype, query_prompt, document_prompt)
        self._source = VectorSource("dense", _storable(encoding), inference, choices)

    @classmethod
    def of_encoding(
        cls, encoding: Encoding, inference: Inference | str, choices: ConnectChoices
    ) -> TercetEmbeddingFunction:
        """Return the function that makes vectors in one way.

        Raises:
            InvalidInputError: Chroma cannot hold such vectors.
        """
        return cls._of(VectorSource("dense", _storable(encoding), inference, choices))

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002
        """Return the documents' vectors, (n, d).

        Raises:
            ModelMismatchError: the collection was filled by another model.
            TercetError: as `Engine.encode`.
        """
        return list(self._source.encode(input, is_query=False))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002
        """Return the queries' vectors, (n, d).

        Raises:
            ModelMismatchError: the collection was filled by another model.
            TercetError: as `Engine.encode`.
        """
        return list(self._source.encode(input, is_query=True))

    def fingerprint(self) -> Fingerprint:
        """Return what decides the vectors' values.

        Raises:
            ModelMismatchError: the collection was filled by another model.
            TercetError: the model cannot be described.
        """
        return self._source.fingerprint()

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma finds this class again."""
        return "tercet"

    def default_space(self) -> Space:
        """Return cosine, which fits vectors of any length."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Return all that Chroma has."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """Return what this is rebuilt from, with the model's fingerprint."""
        return self._source.config()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> TercetEmbeddingFunction:
        """Return the function that a collection was made with; nothing is reached yet."""
        return TercetEmbeddingFunction._of(VectorSource.from_config("dense", config))

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raise unless the vectors stay comparable; device, server and key may change.

        Raises:
            ModelMismatchError: another model, or other dimensions, type or prompts.
        """
        veto_update("dense", old_config, new_config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raise unless a function can be made from this.

        Raises:
            InvalidInputError: it names no model.
        """
        check_config(config)

    @classmethod
    def _of(cls, source: VectorSource) -> TercetEmbeddingFunction:
        function = cls.__new__(cls)
        function._source = source
        return function


def function_of(collection: Collection) -> TercetEmbeddingFunction:
    """Return the function that a collection was made with, as it is stored, whatever it was opened with.

    Raises:
        InvalidInputError: it was not made with a `TercetEmbeddingFunction`.
    """
    stored: Mapping[str, Any] = collection.configuration_json.get("embedding_function") or {}
    if stored.get("name") != TercetEmbeddingFunction.name():
        if (function := _of_schema(collection)) is not None:
            return function
        raise InvalidInputError(
            f"collection {collection.name!r} was made with the embedding function {stored.get('name')!r}, not with "
            "TercetEmbeddingFunction; give that one to create_collection"
        )
    configuration: CollectionConfiguration = collection.configuration
    return cast(TercetEmbeddingFunction, configuration["embedding_function"])


def check_collection(collection: Collection, function: TercetEmbeddingFunction) -> None:
    """Raise unless a function's vectors can be compared with those that a collection holds.

    Chroma looks at a function's name alone. Ask this when you give `get_collection` a function, and before you give
    `collection.modify` one: Chroma stores it first and asks afterwards.

    Raises:
        ModelMismatchError: the collection was filled by another model, or in another way.
        InvalidInputError: it was not made with a `TercetEmbeddingFunction`.
        TercetError: the function's model cannot be described.
    """
    function.fingerprint()
    stored = function_of(collection).get_config()
    if stored["fingerprint"] is None:
        raise unknown(stored["model"])
    check_update("dense", stored, function.get_config())


def _of_schema(collection: Collection) -> TercetEmbeddingFunction | None:
    """Return the function that a schema names for the dense vectors, as collections of Chroma Cloud have it."""
    types = collection.schema.keys.get(EMBEDDING_KEY) if collection.schema else None
    index = types.float_list.vector_index if types and types.float_list else None
    function = index.config.embedding_function if index else None
    return function if isinstance(function, TercetEmbeddingFunction) else None


def _storable(encoding: Encoding) -> Encoding:
    if encoding.output_dtype not in _DTYPES:
        raise InvalidInputError(
            f"output_dtype={encoding.output_dtype!r}: Chroma holds float vectors; choose {' or '.join(_DTYPES)}"
        )
    return encoding
