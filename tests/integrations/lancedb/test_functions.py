"""The registry's functions: what they write, what they ask, what is stored of them, and what they refuse."""

import asyncio
import json

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry
from lancedb.pydantic import LanceModel, Vector

from support.lancedb_tables import BERT, M3, OTHER
from tercet import InvalidInputError, ModelMismatchError, ModelNotFoundError, UnsupportedOperationError
from tercet.connect import reference
from tercet_lancedb import TercetFunction, TercetMultivectorFunction

TEXTS = ["hello world", "the quick brown fox jumps", "numbers", "", "a lazy dog in spring"]


def table_of(db, function, name="t", texts=TEXTS):
    """Return a table made as LanceDB's documentation does it."""

    class Document(LanceModel):
        text: str = function.SourceField()
        vector: function.field_type() = function.VectorField()

    table = db.create_table(name, schema=Document)
    table.add([{"text": text} for text in texts])
    return table


def create(engine, model=BERT, kind="tercet", **fields):
    return get_registry().get(kind).create(model=model, inference=engine, **fields)


@pytest.mark.parametrize(("dtype", "metric"), [("float32", "cosine"), ("float16", "cosine"), ("ubinary", "hamming")])
def test_dense_vectors_are_those_of_the_engine(engine, db, tmp_path, dtype, metric):
    table = table_of(db, create(engine, output_dtype=dtype))
    stored = table.to_arrow()["vector"]
    expected = engine.encode(BERT, TEXTS, output_dtype=dtype).dense
    assert stored.type == pa.list_(pa.from_numpy_dtype(expected.dtype), expected.shape[1])
    assert stored.to_pylist() == expected.tolist()
    found = table.search("a lazy dog in spring").distance_type(metric).limit(1).to_arrow()
    assert found["text"].to_pylist() == ["a lazy dog in spring"] and found["_distance"][0].as_py() < 1e-3

    async def search():
        opened = await (await lancedb.connect_async(tmp_path / "db")).open_table("t")
        query = await opened.search("a lazy dog in spring", query_type="vector")
        return await query.distance_type(metric).limit(3).to_arrow()

    both = table.search("a lazy dog in spring").distance_type(metric).limit(3).to_arrow()
    assert asyncio.run(search()).equals(both)


def test_every_token_of_a_multivector_is_written(engine, db):
    """LanceDB puts a null in place of a row of other length than ndims(); see the next test."""
    function = create(engine, M3, "tercet-multivector")
    table = table_of(db, function)
    stored = table.to_arrow()["vector"]
    expected = engine.encode(M3, TEXTS, output_types=["multivector"]).multivector
    assert stored.null_count == 0 and len({len(tokens) for tokens in expected}) > 1
    assert all(len(tokens) != function.ndims() for tokens in expected)
    assert stored.to_pylist() == [tokens.tolist() for tokens in expected]
    found = table.search("numbers").distance_type("cosine").limit(1).to_arrow()
    assert found["text"].to_pylist() == ["numbers"]


class Naive(TercetMultivectorFunction):
    """Returns the token vectors as any other function would."""

    def _row(self, vector):
        return list(vector)


def test_without_our_care_lancedb_would_null_them(engine, db):
    get_registry().register("naive-multivector")(Naive)
    table = table_of(db, create(engine, M3, "naive-multivector"))
    assert table.to_arrow()["vector"].null_count == len(TEXTS)


def test_queries_and_documents_are_told_apart(engine, db):
    table = table_of(db, create(engine, query_prompt="ask: ", document_prompt="say: "))
    expected = engine.encode(BERT, TEXTS, prompt="say: ").dense
    assert table.to_arrow()["vector"].to_pylist() == expected.tolist()
    query = engine.encode(BERT, "hello", is_query=True, prompt="ask: ")["dense"]
    ours = table.search("hello").distance_type("cosine").limit(5).to_arrow()
    assert ours.equals(table.search(query).distance_type("cosine").limit(5).to_arrow())
    plain = table.search(engine.encode(BERT, "hello")["dense"]).distance_type("cosine").limit(5).to_arrow()
    assert not ours["_distance"].equals(plain["_distance"])


def test_fewer_dimensions_and_pooled_tokens(engine, db):
    table = table_of(db, create(engine, dimensions=8))
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 8)
    pooled = table_of(db, create(engine, M3, "tercet-multivector", pool_factor=2, output_dtype="float16"), "pooled")
    expected = engine.encode(
        M3, TEXTS, output_types=["multivector"], output_dtype="float16", options={"pool_factor": 2}
    ).multivector
    assert pooled.to_arrow()["vector"].to_pylist() == [tokens.tolist() for tokens in expected]


def test_a_null_text_is_left_to_lancedbs_policy(engine, db):
    function = create(engine)
    assert [row is None for row in function.compute_source_embeddings(pa.array(["a", None]))] == [False, True]
    assert function.compute_source_embeddings(pa.array([], pa.string())) == []
    table = db.create_table(
        "t",
        pa.table({"text": ["a", None]}),
        embedding_functions=[EmbeddingFunctionConfig(vector_column="vector", source_column="text", function=function)],
        on_bad_vectors="drop",
    )
    assert table.to_arrow()["text"].to_pylist() == ["a"]


def test_packed_bits_never_become_floats(engine, db):
    function = create(engine, output_dtype="ubinary")

    class Document(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = db.create_table("t", schema=Document)
    with pytest.raises(Exception, match=r"packed bits, which need a uint8 column \(field_type\(\)"):
        table.add([{"text": "a"}])
    assert table.count_rows() == 0


# ── what is stored ───────────────────────────────────────────────────────────────────────────────────────────────────


def stored(table):
    (function,) = json.loads(table.schema.metadata[b"embedding_functions"])
    return function["model"]


def test_what_is_stored_is_the_choice_and_the_fingerprint_and_no_secret(engine, db, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    function = create("http://127.0.0.1:9", api_key_env="MY_KEY", patience_s=0)
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        function.safe_model_dump()
    table = table_of(db, create(engine, dimensions=8))
    found = stored(table)
    fingerprint = found.pop("fingerprint")
    assert found == {"model": BERT, "inference": reference(engine), "dimensions": 8}
    assert fingerprint["dense"]["fingerprint"] == engine.describe(BERT).fingerprint
    reached = create("http://127.0.0.1:9", api_key_env="MY_KEY", fingerprint=fingerprint).safe_model_dump()
    assert reached["api_key_env"] == "MY_KEY" and "s3cret" not in json.dumps(reached)


def test_variables_of_the_registry_are_stored_by_name(engine, db):
    get_registry().set_var("inference", engine)
    table = table_of(db, create("$var:inference", model=f"$var:unset-model:{BERT}"))
    assert stored(table)["inference"] == "$var:inference" and stored(table)["model"] == f"$var:unset-model:{BERT}"
    assert table.search("numbers").limit(1).to_arrow()["text"].to_pylist() == ["numbers"]


def test_the_functions_of_a_reopened_table_are_equal_in_all_but_the_fingerprint(engine, db):
    first = create(engine, dimensions=8, query_prompt="ask: ")
    config = table_of(db, first).embedding_functions["vector"]
    assert isinstance(config.function, TercetFunction) and config.source_column == "text"
    assert {**config.function.model_dump(), "fingerprint": None} == first.model_dump()


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def swapped(engine, db):
    """A table filled with one model, whose schema names another: what a name that changed its meaning looks like."""
    table = table_of(db, create(engine))
    (function,) = json.loads(table.schema.metadata[b"embedding_functions"])
    function["model"]["model"] = OTHER
    schema = table.schema.with_metadata({"embedding_functions": json.dumps([function])})
    return db.create_table("swapped", schema=schema)


def test_another_model_under_the_name_is_refused(swapped, tmp_path):
    told = (
        r"the table holds dense vectors of tiny/bert.*tiny/other.*Use the model it was filled with, or fill a new one"
    )
    with pytest.raises(ModelMismatchError, match=told):
        swapped.search("hello")
    with pytest.raises(Exception, match=told):  # LanceDB passes an error in `add` through C, where its class is lost
        swapped.add([{"text": "hello"}])

    async def search():
        table = await (await lancedb.connect_async(tmp_path / "db")).open_table("swapped")
        await table.search("hello", query_type="vector")

    with pytest.raises(ModelMismatchError, match=told):
        asyncio.run(search())


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        ({"modle": "x"}, InvalidInputError, "TercetFunction: modle: Extra inputs are not permitted"),
        (
            {"output_dtype": "int8"},
            InvalidInputError,
            "output_dtype: Input should be 'float32', 'float16' or 'ubinary'",
        ),
        ({"dimensions": 0}, InvalidInputError, "dimensions must be a whole number from 1, not 0"),
        ({"inference": 7}, InvalidInputError, "inference is int; give 'local', a server's URL, an Engine or a Client"),
    ],
)
def test_wrong_fields_are_refused_when_a_function_is_made(engine, fields, kind, told):
    with pytest.raises(kind, match=told):
        get_registry().get("tercet").create(**{"model": BERT, "inference": engine, **fields})


def test_errors_keep_their_class_and_come_at_once(engine):
    with pytest.raises(ModelNotFoundError):
        create(engine, "no/such").compute_query_embeddings_with_retry("hello")
    with pytest.raises(UnsupportedOperationError, match="has no 'multivector' output"):
        create(engine, "bm25", "tercet-multivector").ndims()


def test_making_a_function_opens_no_model(engine):
    function = create(engine, "no/such")
    assert function.model == "no/such" and not np.isnan(function.patience_s)
