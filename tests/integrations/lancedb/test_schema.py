"""What a table's schema says, and what it refuses to become."""

import pyarrow as pa
import pytest
from lancedb.embeddings import EmbeddingFunctionRegistry

from support.lancedb_tables import BERT, M3, rows
from tercet import Encoding, InvalidInputError, UnsupportedOperationError, VectorSpec
from tercet_lancedb import TableLayout, embed_table, schema_for

COLUMNS = rows(1).schema


def test_every_kind_of_vector_has_its_column(engine):
    spec = VectorSpec(
        dense=Encoding(BERT, output_dtype="float16"), sparse="bm25", multivector=Encoding(M3, dimensions=8)
    )
    schema = schema_for(spec, COLUMNS.with_metadata({"mine": "kept"}), inference=engine)
    assert schema.names == ["id", "text", "n", "vector", "sparse", "sparse_indices", "multivector", "tercet_mark"]
    assert schema.field("vector").type == pa.list_(pa.float16(), 32)
    assert schema.field("multivector").type == pa.list_(pa.list_(pa.float32(), 8))
    assert schema.field("sparse_indices").type == pa.list_(pa.uint32())
    assert schema.metadata[b"mine"] == b"kept"
    functions = EmbeddingFunctionRegistry.get_instance().parse_functions(schema.metadata)
    assert {name: config.source_column for name, config in functions.items()} == {
        "vector": "text",
        "multivector": "text",
    }
    layout = TableLayout.of(schema)
    assert layout.spec.encodings == spec.encodings and layout.idf and layout.fingerprint == spec.fingerprint(engine)


def test_only_weights_without_idf_get_it_from_the_search(engine):
    assert not TableLayout.of(schema_for(VectorSpec(sparse=M3), COLUMNS, inference=engine)).idf


def test_rows_added_by_lancedb_are_embedded_and_later_taken_for_old(engine, db):
    spec = VectorSpec(dense=M3, multivector=M3)
    table = db.create_table("docs", schema=schema_for(spec, COLUMNS, inference=engine))
    table.add(rows(3))
    assert (
        table.count_rows("vector IS NULL OR multivector IS NULL") == 0 and table.count_rows("tercet_mark IS NULL") == 3
    )
    seen = []
    table = embed_table(db, "docs", rows(4), spec, engine, progress=seen.append)
    assert table.count_rows() == 4 and seen[-1].written == 4


def test_rows_without_sparse_vectors_are_refused_by_the_table(engine, db):
    table = db.create_table("docs", schema=schema_for(VectorSpec(dense=M3, sparse=M3), COLUMNS, inference=engine))
    with pytest.raises(RuntimeError, match=r"missing=\[sparse(_indices)?, sparse(_indices)?\]"):
        table.add(rows(1))


@pytest.mark.parametrize(
    ("spec", "columns", "names", "kind", "told"),
    [
        (
            VectorSpec(dense=BERT),
            COLUMNS,
            {"text": "body"},
            InvalidInputError,
            "no column 'body', which is to be the text",
        ),
        (
            VectorSpec(dense=BERT),
            COLUMNS,
            {"key": "k"},
            InvalidInputError,
            "there are id, text, n. Name another with key=",
        ),
        (
            VectorSpec(dense=BERT),
            COLUMNS.append(pa.field("vector", pa.int8())),
            {},
            InvalidInputError,
            "the column 'vector' is one of those to be added; rename it",
        ),
        (
            VectorSpec(dense=Encoding(BERT, output_dtype="int8")),
            COLUMNS,
            {},
            InvalidInputError,
            "LanceDB cannot search dense vectors of int8; choose one of float32, float16, ubinary",
        ),
        (
            VectorSpec(multivector=Encoding(BERT, output_dtype="ubinary")),
            COLUMNS,
            {},
            InvalidInputError,
            "multivector vectors of ubinary; choose one of float32, float16",
        ),
        (VectorSpec(sparse=BERT), COLUMNS, {}, UnsupportedOperationError, "has no 'sparse' output"),
    ],
)
def test_what_cannot_be_a_table_is_refused(engine, spec, columns, names, kind, told):
    with pytest.raises(kind, match=told):
        schema_for(spec, columns, inference=engine, **names)


def test_a_table_of_anothers_making_says_nothing_of_vectors():
    with pytest.raises(InvalidInputError, match="make it with embed_table or schema_for"):
        TableLayout.of(COLUMNS)
