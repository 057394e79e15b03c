"""`TercetSparseEmbeddingFunction`: sparse vectors for a sparse index of Chroma Cloud."""

from __future__ import annotations

from typing import Any, Unpack

from chromadb.api.types import Documents, SparseEmbeddingFunction, SparseVectors
from chromadb.base_types import SparseVector
from chromadb.utils.embedding_functions import register_sparse_embedding_function

from tercet.connect import LOCAL, ConnectChoices
from tercet.types import Inference, SparseBatch
from tercet.vector_spec import Encoding, Fingerprint
from tercet_chroma.source import VectorSource, check_config, veto_update


@register_sparse_embedding_function
class TercetSparseEmbeddingFunction(SparseEmbeddingFunction[Documents]):
    """Sparse vectors of a model (BM25, SPLADE, BGE-M3), documents and queries each encoded as what they are.

    Chroma Cloud alone has sparse indexes: see `hybrid_schema`; elsewhere `HybridCollection` keeps the sparse vectors.
    Persisted, rebuilt and checked as `TercetEmbeddingFunction` is.

    Args:
        model: "bm25", hub id, `id@revision`, local directory, or a name that the server knows.
        inference: "local" for the engine in this process, a server's URL, or an object that encodes.
        top_k: keep the largest so many weights of a document.
        query_prompt: a prompt's name or text; None takes the model's own for queries.
        document_prompt: the same for documents.
        choices: how to reach it: `device`, `precision`, … or `api_key_env`.

    Raises:
        InvalidInputError: a value that no model could take.
    """

    def __init__(
        self,
        model: str,
        inference: Inference | str = LOCAL,
        *,
        top_k: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        **choices: Unpack[ConnectChoices],
    ) -> None:
        encoding = Encoding(model, query_prompt=query_prompt, document_prompt=document_prompt, top_k=top_k)
        self._source = VectorSource("sparse", encoding, inference, choices)

    def __call__(self, input: Documents) -> SparseVectors:  # noqa: A002
        """Return the documents' vectors.

        Raises:
            ModelMismatchError: the collection was filled by another model.
            TercetError: as `Engine.encode`.
        """
        return _as_chroma(self._source.encode(input, is_query=False))

    def embed_query(self, input: Documents) -> SparseVectors:  # noqa: A002
        """Return the queries' vectors.

        Raises:
            ModelMismatchError: the collection was filled by another model.
            TercetError: as `Engine.encode`.
        """
        return _as_chroma(self._source.encode(input, is_query=True))

    def fingerprint(self) -> Fingerprint:
        """Return what decides the vectors' values; a rebuilt function's is checked first.

        Raises:
            ModelMismatchError: the collection was filled by another model.
        """
        return self._source.fingerprint()

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma finds this class again."""
        return "tercet-sparse"

    def get_config(self) -> dict[str, Any]:
        """Return what this is rebuilt from, with the model's fingerprint."""
        return self._source.config()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> TercetSparseEmbeddingFunction:
        """Return the function that an index was made with; nothing is reached yet."""
        function = TercetSparseEmbeddingFunction.__new__(TercetSparseEmbeddingFunction)
        function._source = VectorSource.from_config("sparse", config)
        return function

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raise `ModelMismatchError` unless the vectors stay comparable."""
        veto_update("sparse", old_config, new_config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raise `InvalidInputError` unless a function can be made from this."""
        check_config(config)


def _as_chroma(batch: SparseBatch) -> SparseVectors:
    """Return Chroma's vectors, which take Python numbers alone."""
    return [SparseVector(indices=row.indices.tolist(), values=row.values.tolist()) for row in batch]
