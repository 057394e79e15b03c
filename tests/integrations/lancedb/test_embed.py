"""`embed_table`: each row once, with the vectors of what it says now, whatever happened before."""

import threading

import numpy as np
import pyarrow as pa
import pytest

from support.lancedb_tables import BERT, M3, OTHER, rows, text
from tercet import Encoding, InvalidInputError, ModelMismatchError, VectorSpec
from tercet.ingest import document_id
from tercet_lancedb import Embedded, embed_table
from tercet_lancedb.columns import multivectors, sparse_batch

ALL = VectorSpec(dense=M3, sparse=M3, multivector=M3)
DENSE = VectorSpec(dense=BERT)


class Watched:
    """The engine; `texts` are those that it was asked for."""

    def __init__(self, engine):
        self.engine = engine
        self.texts = []

    def encode(self, model, items, **keywords):
        self.texts.extend(items)
        return self.engine.encode(model, items, **keywords)

    def __getattr__(self, name):
        return getattr(self.engine, name)


def stored(table):
    """Return the rows in the order of their numbers."""
    return table.to_arrow().sort_by("n")


def test_all_vectors_are_those_of_the_engine(engine, db):
    table = embed_table(db, "docs", rows(10), ALL, engine, batch_size=4)
    found = stored(table)
    assert found["id"].to_pylist() == rows(10)["id"].to_pylist()
    texts = rows(10)["text"].to_pylist()
    for first in (0, 4, 8):  # as they were batched: a batch's shape may change the last bit
        part = slice(first, min(first + 4, 10))
        expected = engine.encode(M3, texts[part], output_types=["dense", "sparse", "multivector"])
        batch = found.slice(part.start, part.stop - part.start)
        assert batch["vector"].to_pylist() == expected.dense.tolist()
        np.testing.assert_array_equal(multivectors(batch["multivector"]).values, expected.multivector.values)
        np.testing.assert_array_equal(sparse_batch(batch["sparse"]).indices, expected.sparse.indices)
        np.testing.assert_array_equal(sparse_batch(batch["sparse"]).values, expected.sparse.values)
    assert found["sparse_indices"].to_pylist() == [one["indices"] for one in found["sparse"].to_pylist()]


def test_what_is_there_already_is_not_embedded_again(engine, db):
    watched, seen = Watched(engine), []
    embed_table(db, "docs", rows(6), DENSE, watched, batch_size=4)
    table = embed_table(db, "docs", rows(9), DENSE, watched, batch_size=4, progress=seen.append)
    assert watched.texts == [text(i) for i in range(9)]
    assert seen == [Embedded(0, 4), Embedded(2, 6), Embedded(3, 6)]
    assert table.count_rows() == 9


@pytest.mark.parametrize("column", ["text", "n"])
def test_a_row_that_changed_is_replaced_whole(engine, db, column):
    embed_table(db, "docs", rows(6), DENSE, engine)
    changed = rows(6)
    values = changed[column].to_pylist()
    values[2] = "something else" if column == "text" else -7
    changed = changed.set_column(changed.column_names.index(column), column, [values])
    watched = Watched(engine)
    table = embed_table(db, "docs", changed, DENSE, watched)
    row = table.search().where("id = 'd2'").to_arrow()
    assert row[column].to_pylist() == [values[2]] and len(watched.texts) == 1 and table.count_rows() == 6
    assert row["vector"].to_pylist() == engine.encode(BERT, row["text"].to_pylist()).dense.tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_of_rows_with_one_key_the_last_counts(engine, db, batch_size):
    embed_table(db, "docs", rows(1), DENSE, engine)
    versions = ["old", "new", text(0), "last", "last"]
    twice = pa.table({"id": ["d0"] * 5, "text": versions, "n": [0] * 5})
    for _ in range(2):
        table = embed_table(db, "docs", twice, DENSE, engine, batch_size=batch_size)
        assert table.to_arrow()["text"].to_pylist() == ["last"]
    back = embed_table(db, "docs", twice.slice(0, 3), DENSE, engine, batch_size=batch_size)
    assert back.to_arrow()["text"].to_pylist() == [text(0)]


def test_keys_may_be_numbers_or_hold_quotes_or_be_made_from_the_text(engine, db):
    spaced = pa.table({"Doc ID": ["x", "y"], "The Text": ["hello", "world"]})
    names = {"key": "Doc ID", "text": "The Text"}
    assert [embed_table(db, "spaced", spaced, DENSE, engine, **names).count_rows() for _ in range(2)] == [2, 2]
    numbered = embed_table(db, "numbers", rows(5), DENSE, engine, key="n")
    assert embed_table(db, "numbers", rows(5), DENSE, engine, key="n").count_rows() == numbered.count_rows() == 5
    quoted = pa.table({"id": ["it's", 'a "b"'], "text": ["x", "y"]})
    assert [embed_table(db, "quoted", quoted, DENSE, engine).count_rows() for _ in range(2)] == [2, 2]
    bare = pa.table({"text": ["hello", "world", "hello"]})
    table = embed_table(db, "bare", bare, DENSE, engine)
    assert sorted(table.to_arrow()["id"].to_pylist()) == sorted(map(document_id, ["hello", "world"]))


def test_a_stream_is_read_as_it_is_needed(engine, db):
    """At most three batches are away from the reader and not in the table: one made, one waiting, one being written."""
    read, written, most = [], [0], [0]

    def batches():
        for i in range(8):
            read.append(i)
            most[0] = max(most[0], len(read) * 5 - written[0])
            yield from rows(5, 5 * i).to_batches()

    def progress(done):
        written[0] = done.written

    table = embed_table(db, "docs", batches(), DENSE, engine, batch_size=5, progress=progress)
    assert table.count_rows() == 40 and most[0] <= 5 * 5


@pytest.mark.parametrize("shape", ["table", "reader", "batches", "tables"])
def test_rows_come_in_any_arrow_shape(engine, db, shape):
    whole = rows(7)
    given = {
        "table": whole,
        "reader": whole.to_reader(max_chunksize=2),
        "batches": iter(whole.to_batches(max_chunksize=3)),
        "tables": [whole.slice(0, 1), whole.slice(1)],
    }[shape]
    assert embed_table(db, "docs", given, DENSE, engine, batch_size=4).count_rows() == 7


def test_no_rows_make_an_empty_table_that_can_be_filled(engine, db):
    for empty in (rows(0), rows(0).to_reader()):
        assert embed_table(db, "docs", empty, DENSE, engine).count_rows() == 0
    assert embed_table(db, "docs", rows(2), DENSE, engine).count_rows() == 2
    with pytest.raises(InvalidInputError, match="there are no rows, not even columns"):
        embed_table(db, "none", [], DENSE, engine)


@pytest.mark.parametrize("column", ["id", "text"])
def test_a_row_without_key_or_text_is_named(engine, db, column):
    broken = rows(3).set_column(0 if column == "id" else 1, column, [["a", None, "c"]])
    with pytest.raises(InvalidInputError, match=rf"{column!r} is null in .*'n': 1.*leave such rows out") as caught:
        embed_table(db, "docs", [rows(4, 10), broken], DENSE, engine, batch_size=4)
    assert caught.value.__notes__ == [
        "4 rows were written to 'docs' by this call, 0 were there before; call embed_table again with the same rows, "
        "and it goes on from there"
    ]
    assert db.open_table("docs").count_rows() == 4


def test_another_model_or_way_is_refused_before_anything_is_written(engine, db):
    embed_table(db, "docs", rows(3), VectorSpec(dense=BERT, sparse="bm25"), engine)
    refused = {
        "Use the model it was filled with": (ModelMismatchError, VectorSpec(dense=OTHER, sparse="bm25"), {}),
        "dimensions: None then, 8 now": (ModelMismatchError, VectorSpec(dense=Encoding(BERT, dimensions=8)), {}),
        "has no multivector vectors": (ModelMismatchError, VectorSpec(dense=BERT, multivector=BERT), {}),
        "table 'docs' has sparse vectors too": (InvalidInputError, DENSE, {}),
        "was filled with key='id', not 'n'": (InvalidInputError, VectorSpec(dense=BERT, sparse="bm25"), {"key": "n"}),
    }
    for told, (kind, spec, names) in refused.items():
        with pytest.raises(kind, match=told):
            embed_table(db, "docs", rows(9), spec, engine, **names)
    assert db.open_table("docs").count_rows() == 3


def test_a_batch_that_lancedb_refuses_leaves_what_is_written_and_can_be_mended(engine, db):
    """A null where the table allows none: Arrow lets it pass, LanceDB does not."""
    schema = rows(0).schema.set(2, pa.field("n", pa.int64(), nullable=False))
    good = rows(8).cast(schema)
    bad = pa.table([good["id"], good["text"], pa.array([0, 1, 2, 3, 4, None, 6, 7])], schema=schema)
    with pytest.raises(RuntimeError, match="field 'n' with null values to non-nullable") as caught:
        embed_table(db, "docs", bad, DENSE, engine, batch_size=4)
    assert caught.value.__notes__[0].startswith("4 rows were written to 'docs' by this call, 0 were there before;")
    assert not [thread for thread in threading.enumerate() if thread.name == "tercet-ahead"]
    seen = []
    table = embed_table(db, "docs", good, DENSE, engine, batch_size=4, progress=seen.append)
    assert table.count_rows() == 8 and seen[-1] == Embedded(4, 4)


def test_batches_of_different_columns_are_no_table(engine, db):
    other = rows(3, 4).set_column(2, "n", pa.array(["x", "y", "z"]))
    with pytest.raises(pa.ArrowInvalid, match="Schema at index 1 was different"):
        embed_table(db, "docs", [rows(4), other], DENSE, engine, batch_size=4)


def test_what_progress_raises_ends_the_work_at_once(engine, db):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_table(db, "docs", rows(40), DENSE, engine, batch_size=4, progress=stop)
    assert db.open_table("docs").count_rows() == 4
    assert not [thread for thread in threading.enumerate() if thread.name == "tercet-ahead"]
