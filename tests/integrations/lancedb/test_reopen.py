"""A table in another process: its functions are rebuilt, its questions answered, and a wrong or missing model told."""

import asyncio
import json
import subprocess
import sys

import lancedb
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel

from support.lancedb_tables import BERT, OTHER, rows
from support.tiny_models import save_bert
from tercet import InvalidInputError, ModelMismatchError, VectorSpec
from tercet_lancedb import aopen_table, embed_table, hybrid, open_table

ANSWER = """
import lancedb, sys
table = lancedb.connect(sys.argv[1]).open_table("docs")
def nearest():
    search = table.search("lazy dog", vector_column_name="vector").distance_type("cosine")
    return search.limit(3).to_arrow()["id"].to_pylist()
try:
    nearest()
except Exception as error:
    print(repr(error))
from tercet_lancedb import hybrid
print(nearest())
print(hybrid(table, "lazy dog, note 7", 4)["id"].to_pylist())
"""


def another_process(place):
    done = subprocess.run([sys.executable, "-c", ANSWER, str(place)], capture_output=True, text=True, timeout=240)
    return done.stdout.splitlines(), done.stderr


@pytest.fixture
def filled(tmp_path):
    """A table made with "local" and a model in a directory, and where both are."""
    save_bert(tmp_path / "model")
    spec = VectorSpec(dense=str(tmp_path / "model"), sparse="bm25")
    table = embed_table(lancedb.connect(tmp_path / "db"), "docs", rows(30), spec, device="cpu", precision="float32")
    return table, tmp_path


@pytest.mark.slow
def test_a_new_process_answers_alike_once_the_functions_are_imported(filled):
    table, path = filled
    ours = table.search("lazy dog", vector_column_name="vector").distance_type("cosine").limit(3).to_arrow()
    best = hybrid(table, "lazy dog, note 7", 4)["id"].to_pylist()
    told, _ = another_process(path / "db")
    assert told == ["KeyError('tercet')", str(ours["id"].to_pylist()), str(best)]


@pytest.mark.slow
def test_a_model_that_changed_in_its_place_is_refused_in_a_new_process(filled):
    save_bert(filled[1] / "model", seed=1)
    told, error = another_process(filled[1] / "db")
    assert told == ["KeyError('tercet')"]
    assert "ModelMismatchError: the table holds dense vectors of" in error and "fill a new one" in error


def test_opening_says_which_function_is_missing(engine, db, tmp_path):
    embed_table(db, "docs", rows(3), VectorSpec(dense=BERT), engine)
    assert open_table(db, "docs").count_rows() == 3
    schema = db.open_table("docs").schema
    (function,) = json.loads(schema.metadata[b"embedding_functions"])
    stored = json.dumps([{**function, "name": "someone-elses"}])
    db.create_table("strange", schema=schema.with_metadata({"embedding_functions": stored}))
    told = r"table 'strange' fills 'vector' with the function 'someone-elses', which is not registered here; import"
    with pytest.raises(InvalidInputError, match=told):
        open_table(db, "strange")

    async def opened(name):
        return await (await aopen_table(await lancedb.connect_async(tmp_path / "db"), name)).count_rows()

    assert asyncio.run(opened("docs")) == 3
    with pytest.raises(InvalidInputError, match=told):
        asyncio.run(opened("strange"))


def test_opening_refuses_another_model_under_the_name(engine, db):
    class Swapped:
        """The engine, after somebody put another model under every name."""

        encode, score, models = engine.encode, engine.score, engine.models

        def describe(self, model):
            return engine.describe(OTHER)

    embed_table(db, "docs", rows(3), VectorSpec(dense=BERT), engine)
    told = r"table 'docs' holds dense vectors of tiny/bert.*cannot be compared.*Use the model it was filled with"
    with pytest.raises(ModelMismatchError, match=told):
        open_table(db, "docs", Swapped())

    get_registry().set_var("reopened", engine)
    function = get_registry().get("tercet").create(model=BERT, inference="$var:reopened")

    class Document(LanceModel):
        text: str = function.SourceField()
        vector: function.field_type() = function.VectorField()

    db.create_table("own", schema=Document)
    assert open_table(db, "own").name == "own"
    swapped = Swapped()
    get_registry().set_var("reopened", swapped)
    with pytest.raises(ModelMismatchError, match=r"table 'own' holds dense vectors of tiny/bert"):
        open_table(db, "own")


def test_an_object_of_another_process_is_asked_for_again(engine, db):
    embed_table(db, "docs", rows(3), VectorSpec(dense=BERT), engine)
    schema = db.open_table("docs").schema
    metadata = {name: value.replace(b'"object:', b'"object:dead') for name, value in schema.metadata.items()}
    db.create_table("old", schema=schema.with_metadata(metadata))
    with pytest.raises(InvalidInputError, match="an object of another process"):
        open_table(db, "old")
    assert open_table(db, "old", engine).count_rows() == 0
