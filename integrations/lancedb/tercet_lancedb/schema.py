"""`schema_for`: a table's schema with its vector columns, and what LanceDB and Tercet need to know of them."""

from __future__ import annotations

from typing import Any, Unpack

import pyarrow as pa
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry

from tercet.connect import LOCAL, ConnectChoices, connect, reference
from tercet.errors import InvalidInputError
from tercet.types import Inference, Output
from tercet.vector_spec import VectorSpec
from tercet_lancedb import known
from tercet_lancedb.columns import COLUMNS, SPARSE_INDICES, SPARSE_TYPE, VALUE_TYPES
from tercet_lancedb.functions import TercetFunction, TercetMultivectorFunction
from tercet_lancedb.layout import MARK, TableLayout, own_columns

_FUNCTIONS: dict[Output, Any] = {"dense": TercetFunction, "multivector": TercetMultivectorFunction}


def schema_for(
    spec: VectorSpec,
    columns: pa.Schema,
    *,
    inference: Inference | str = LOCAL,
    text: str = "text",
    key: str = "id",
    **choices: Unpack[ConnectChoices],
) -> pa.Schema:
    """Return the columns with the vectors' added: `vector`, `sparse` and `sparse_indices`, `multivector`, a mark.

    The metadata holds the functions "tercet" and "tercet-multivector", so that LanceDB encodes queries and the rows of
    `add`, and the models' fingerprint. Sparse vectors cannot be null, for LanceDB has no function that would make them.

    Args:
        spec: the models.
        columns: of the rows, among them those named `text` and `key`.
        inference: as `connect`.
        text: column that is encoded.
        key: column that tells rows apart.
        choices: as `ConnectChoices`.

    Raises:
        InvalidInputError: a column is missing or has a name that is needed, or a vector's type cannot be searched.
        TercetError: a model cannot be opened.
    """
    _check_columns(columns, spec, text, key)
    encodes = connect(inference, **choices)
    layout = TableLayout(
        spec=spec,
        fingerprint=known.fingerprint(encodes, spec),
        text=text,
        key=key,
        inference=reference(inference),
        choices=dict(choices),
        idf="sparse" in spec.outputs and known.describe(encodes, spec.encodings["sparse"].model).architecture == "BM25",
    )
    fields = [field for output in spec.outputs for field in _fields(encodes, spec, output)]
    metadata = {**(columns.metadata or {}), **layout.metadata(), **_functions(layout, inference)}
    return pa.schema([*columns, *fields, pa.field(MARK, pa.string())], metadata=metadata)


def _fields(inference: Inference, spec: VectorSpec, output: Output) -> list[pa.Field]:
    dtype = spec.encodings[output].output_dtype
    if dtype not in VALUE_TYPES[output]:
        raise InvalidInputError(
            f"LanceDB cannot search {output} vectors of {dtype}; choose one of {', '.join(VALUE_TYPES[output])}"
        )
    if output == "sparse":
        fields = (pa.field(COLUMNS["sparse"], SPARSE_TYPE), pa.field(SPARSE_INDICES, pa.list_(pa.uint32())))
        return [field.with_nullable(False) for field in fields]
    vector = pa.list_(VALUE_TYPES[output][dtype], known.width(inference, spec, output))
    return [pa.field(COLUMNS[output], pa.list_(vector) if output == "multivector" else vector)]


def _functions(layout: TableLayout, inference: Inference | str) -> dict[bytes, bytes]:
    configs = [
        EmbeddingFunctionConfig(
            vector_column=COLUMNS[output],
            source_column=layout.text,
            function=_function(layout, output, inference),
        )
        for output in layout.spec.outputs
        if output in _FUNCTIONS
    ]
    metadata = get_registry().get_table_metadata(configs) or {}  # type: ignore[no-untyped-call]
    return {name.encode(): value for name, value in metadata.items()}


def _function(layout: TableLayout, output: Output, inference: Inference | str) -> Any:
    kind = _FUNCTIONS[output]
    encoding = layout.spec.encodings[output]
    fields = {name: getattr(encoding, name) for name in kind.encode_fields}
    given = {name: value for name, value in fields.items() if value is not None}
    return kind.create(**given, **layout.choices, inference=inference)


def _check_columns(columns: pa.Schema, spec: VectorSpec, text: str, key: str) -> None:
    for role, name in (("text", text), ("key", key)):
        if name not in columns.names:
            raise InvalidInputError(
                f"no column {name!r}, which is to be the {role}; there are {', '.join(columns.names)}. "
                f"Name another with {role}=…"
            )
    if taken := [name for name in own_columns(spec.outputs) if name in columns.names]:
        raise InvalidInputError(f"the column {taken[0]!r} is one of those to be added; rename it")
