"""`CollectionSpec`: a `VectorSpec`, and how Qdrant is to keep its vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from qdrant_client import models

from tercet.errors import InvalidInputError
from tercet.types import Inference, Output
from tercet.vector_spec import VectorSpec

Quantized = Literal["int8", "binary", "product"]
Datatype = Literal["float32", "float16"]

# The full vectors are read again for the best so many times the limit, so that quantisation costs little recall.
_OVERSAMPLING: Mapping[str, float] = {"int8": 1.5, "binary": 3.0, "product": 3.0}


class VectorSchema(TypedDict):
    """The arguments of `create_collection` that say which vectors there are."""

    vectors_config: dict[str, models.VectorParams]
    sparse_vectors_config: dict[str, models.SparseVectorParams]


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """A collection: which models make its vectors, and how Qdrant keeps them.

    Attributes:
        vectors: the models.
        quantization: of dense vectors, a second, small copy that is searched first: int8 takes a quarter of the
            memory, product a sixteenth, binary a thirty-second; the full vectors settle the order.
        datatype: of dense and multivector values. Qdrant's uint8 is left out: its values cannot be negative, and the
            offset of 128 shifts every cosine (recall@10 of all-MiniLM-L6-v2 falls to 0.55; int8 keeps 0.99).
        on_disk: leave full vectors on disk, to be read when needed; quantised copies stay in memory.
        dense_name, sparse_name, multivector_name: what the vectors are called in the collection.

    Raises:
        InvalidInputError: what Qdrant cannot keep or search.
    """

    vectors: VectorSpec
    quantization: Quantized | None = None
    datatype: Datatype = "float32"
    on_disk: bool = False
    dense_name: str = "dense"
    sparse_name: str = "sparse"
    multivector_name: str = "multivector"

    def __post_init__(self) -> None:
        _one_of("quantization", self.quantization, (None, *get_args(Quantized)))
        _one_of("datatype", self.datatype, get_args(Datatype))
        if self.quantization and self.vectors.dense is None:
            raise InvalidInputError(f"quantization={self.quantization!r} is of dense vectors; the spec has none")
        names = [self.name(output) for output in self.vectors.outputs]
        if len(set(names)) < len(names) or not all(names):
            raise InvalidInputError(f"vectors are called {names}; give each a name of its own")
        self._check_values()

    @classmethod
    def compact(cls, vectors: VectorSpec) -> CollectionSpec:
        """Return the spec of a collection larger than memory: float16 on disk, an int8 copy in memory."""
        return cls(vectors, quantization="int8" if vectors.dense else None, datatype="float16", on_disk=True)

    @classmethod
    def smallest(cls, vectors: VectorSpec) -> CollectionSpec:
        """Return the spec that needs the least memory: float16 on disk, one bit a dimension in memory.

        For models of 768 dimensions and more; shorter vectors lose too much in one bit.
        """
        return cls(vectors, quantization="binary" if vectors.dense else None, datatype="float16", on_disk=True)

    def name(self, output: Output) -> str:
        """Return what a kind of vector is called in the collection."""
        return {"dense": self.dense_name, "sparse": self.sparse_name, "multivector": self.multivector_name}[output]

    def search_params(self) -> models.SearchParams | None:
        """Return how quantised vectors are searched, None where nothing is quantised."""
        if self.quantization is None:
            return None
        oversampling = _OVERSAMPLING[self.quantization]
        return models.SearchParams(
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=oversampling)
        )

    def schema(self, inference: Inference) -> VectorSchema:
        """Return the vectors' configuration, to be given to `create_collection`.

        The multivector has no graph: it orders what the others have found. BM25 weights get Qdrant's inverse document
        frequency; learned weights (SPLADE, BGE-M3) hold their own.

        Raises:
            TercetError: a model cannot be opened.
        """
        dense: dict[str, models.VectorParams] = {}
        sparse: dict[str, models.SparseVectorParams] = {}
        for output, encoding in self.vectors.encodings.items():
            info = inference.describe(encoding.model)
            if output == "sparse":
                sparse[self.sparse_name] = self._sparse(is_bm25=info.architecture == "BM25")
            else:
                dense[self.name(output)] = self._dense(output, encoding.dimensions or info.dims[output])
        return {"vectors_config": dense, "sparse_vectors_config": sparse}

    def _dense(self, output: Output, dims: int) -> models.VectorParams:
        late = output == "multivector"
        return models.VectorParams(
            size=dims,
            distance=models.Distance.COSINE,
            datatype=None if self.datatype == "float32" else models.Datatype(self.datatype),
            on_disk=self.on_disk or None,
            quantization_config=None if late or self.quantization is None else _QUANTIZATIONS[self.quantization],
            multivector_config=_MAXSIM if late else None,
            hnsw_config=models.HnswConfigDiff(m=0) if late else None,
        )

    def _sparse(self, is_bm25: bool) -> models.SparseVectorParams:
        return models.SparseVectorParams(
            modifier=models.Modifier.IDF if is_bm25 else None,
            index=models.SparseIndexParams(on_disk=True) if self.on_disk else None,
        )

    def _check_values(self) -> None:
        for output, encoding in self.vectors.encodings.items():
            if output != "sparse" and encoding.output_dtype not in get_args(Datatype):
                raise InvalidInputError(
                    f"{output} vectors of {encoding.output_dtype} values: Qdrant compares float32 and float16 "
                    "ones; for small ones give the CollectionSpec a quantization"
                )


def as_spec(spec: CollectionSpec | VectorSpec) -> CollectionSpec:
    """Return the spec; a `VectorSpec` alone stands for a collection of Qdrant's defaults."""
    return spec if isinstance(spec, CollectionSpec) else CollectionSpec(spec)


_MAXSIM = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)

# `always_ram` and `on_disk`, not the newer `memory`, which servers before 1.18 do not know.
_QUANTIZATIONS: Mapping[str, Any] = {
    "int8": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    "product": models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
    ),
}


def _one_of(name: str, given: object, allowed: tuple[object, ...]) -> None:
    if given not in allowed:
        raise InvalidInputError(f"{name}={given!r}: choose one of {', '.join(map(repr, allowed))}")
