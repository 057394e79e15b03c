import io
import json
import os
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tercet.errors import InvalidInputError
from tercet_server.bulk.read import STDIN, Columns, read_rows
from tercet_server.bulk.rows import Reading, Row

TEXTS = ["one", "", "  drei  ", "四\u2028五", "six\ttabs"]
IDS = ["a", "b", "7", "ü", "e"]
QUERY = Columns(query="query")


def table() -> pa.Table:
    return pa.table({"text": TEXTS, "id": IDS, "query": ["q"] * 5, "other": [1.5] * 5})


def write(path: Path) -> Path:
    """Write the texts in the format of the extension."""
    if path.suffix == ".txt":
        path.write_bytes("\n".join(TEXTS).encode())
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) + "\n" for row in table().to_pylist()))
    elif path.suffix == ".parquet":
        pq.write_table(table(), path, row_group_size=2)
    else:
        make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with path.open("wb") as stream, make(stream, table().schema) as writer:
            writer.write_table(table(), max_chunksize=2)
    return path


def plain(rows: list[Row]) -> list[tuple[str, str | None, str | None]]:
    return [(row.text, row.id, row.query) for row in rows]


@pytest.mark.parametrize("extension", ["jsonl", "parquet", "arrow", "arrows"])
def test_every_format_gives_the_same_rows(extension: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows.{extension}")
    with_queries = list(read_rows([path], None, QUERY))
    assert plain(with_queries) == [(text, identity, "q") for text, identity in zip(TEXTS, IDS, strict=True)]
    assert plain(list(read_rows([path], None, Columns()))) == [(t, i, None) for t, i in zip(TEXTS, IDS, strict=True)]


def test_each_line_of_a_text_is_a_row_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("\ufeff".encode() + "\r\n".join(TEXTS).encode() + b"\r\n")
    rows = list(read_rows([path], None, Columns()))
    assert [row.text for row in rows] == TEXTS
    assert [row.fraction for row in rows] == sorted(row.fraction for row in rows) and rows[-1].fraction == 1.0


def test_inputs_follow_one_another_and_share_the_progress(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.txt"), write(tmp_path / "b.parquet")]
    rows = list(read_rows(paths, None, Columns()))
    assert [row.text for row in rows] == TEXTS * 2
    assert [rows[4].fraction, rows[9].fraction] == [0.5, 1.0]


def test_a_format_that_is_named_wins_over_the_extension(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl").rename(tmp_path / "rows.txt")
    assert [row.text for row in read_rows([path], "jsonl", Columns())] == TEXTS


def test_columns_can_have_other_names_and_ids_can_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "x", "key": 12, "id": {}}\n"bare text"\n')
    rows = read_rows([path], None, Columns("body", "key"))
    assert plain([next(rows)]) == [("x", "12", None)]
    with pytest.raises(InvalidInputError, match=r"row 2: it has no 'key'"):
        next(rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": 3}', "'text' is a int, where a string is expected"),
        (b'{"text": null}', "'text' is null"),
        (b'{"txt": "x"}', "'text' is missing; there are 'txt'"),
        (b'{"text": "x", "id": 1.5}', "'id' is a float; it must be a string or a whole number"),
        (b'{"text": "x', "no JSON"),
        (b"[1]", "a list where an object with 'text' is expected"),
        (b'"\xff"', "row 2: "),
    ],
)
def test_a_bad_row_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    rows = read_rows([path], None, Columns())
    assert next(rows).text == "good"
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl, row 2: ") as raised:
        next(rows)
    assert message in raised.value.message


def test_bad_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="no such file"):
        read_rows([tmp_path / "missing.txt"], None, Columns())
    with pytest.raises(InvalidInputError, match=r"'\.csv' is not one of .*--input-format"):
        read_rows([tmp_path / "rows.csv"], None, Columns())
    path = write(tmp_path / "rows.parquet")
    with pytest.raises(InvalidInputError, match="no column 'body'; the file has text, id, query, other"):
        next(read_rows([path], None, Columns("body")))
    path.write_bytes(b"no parquet at all")
    with pytest.raises(InvalidInputError, match=r"rows\.parquet: "):
        next(read_rows([path], None, Columns()))
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(InvalidInputError, match=r"latin\.txt, row 2: 'utf-8'"):
        list(read_rows([latin], None, Columns()))


def test_standard_input_is_text_unless_named_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(body: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body)))

    given(b"one\ntwo")
    assert [row.text for row in read_rows([STDIN], None, Columns())] == ["one", "two"]
    given(write(tmp_path / "rows.arrows").read_bytes())
    assert [row.text for row in read_rows([STDIN], "arrow", Columns())] == TEXTS
    with pytest.raises(InvalidInputError, match="Parquet cannot be read from standard input"):
        next(read_rows([STDIN], "parquet", Columns()))


def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "rows.txt"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["one\ntwo\n"])
    writer.start()
    assert [(row.text, row.fraction) for row in read_rows([pipe], None, Columns())] == [("one", None), ("two", None)]
    writer.join()
    with pytest.raises(InvalidInputError, match="no such file"):
        read_rows([tmp_path], "text", Columns())


def test_chunks_are_bounded_by_rows_and_by_characters() -> None:
    rows = [Row("x"), Row("y"), Row("z" * 5_000_000), Row("v"), Row("w")]
    chunks = list(Reading(rows).chunks(2))
    assert [(chunk.first, len(chunk.rows)) for chunk in chunks] == [(0, 2), (2, 1), (3, 2)]


def test_a_digest_tells_rows_apart_however_they_are_cut() -> None:
    def digest(*rows: Row, size: int = 10) -> bytes:
        return list(Reading(rows).chunks(size))[-1].digest

    same = digest(Row("ab"), Row("c"))
    assert same == digest(Row("ab"), Row("c"), size=1) == digest(Row("ab", fraction=0.5), Row("c"))
    others = [digest(Row("a"), Row("bc")), digest(Row("abc")), digest(Row("ab", "c")), digest(Row("ab", "")), same]
    others += [digest(Row("ab"), Row("c", None, "")), digest(Row("c"), Row("ab"))]
    assert len(set(others)) == len(others)


def test_rows_that_were_done_are_passed_over_only_if_they_are_the_same() -> None:
    rows = [Row(text) for text in "abcdef"]
    first = next(Reading(rows).chunks(4))
    reading = Reading(rows)
    reading.skip(4, first.digest)
    assert [chunk.rows for chunk in reading.chunks(4)] == [rows[4:]]
    for changed in ([Row("A"), *rows[1:]], rows[:3], [rows[1], rows[0], *rows[2:]]):
        with pytest.raises(InvalidInputError, match="the input has changed: its first 4 rows"):
            Reading(changed).skip(4, first.digest)
