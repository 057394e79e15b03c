"""Rows of text, JSON Lines, Parquet and Arrow files or of a pipe, one after another and never the whole file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tercet.errors import InvalidInputError
from tercet_server.bulk.rows import Row

STDIN = Path("-")
EXTENSIONS: Mapping[str, str] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow",
}
FORMATS = ("text", "jsonl", "parquet", "arrow")
_LONGEST_LINE = 64 << 20
_BATCH_ROWS = 1024
_ARROW_FILE = b"ARROW1"


@dataclass(frozen=True, slots=True)
class Columns:
    """The names under which rows hold their values; a `query` of None means that there is none to read.

    Attributes:
        id: None takes the column `id` where there is one.
    """

    text: str = "text"
    id: str | None = None
    query: str | None = None


def format_of(path: Path, given: str | None) -> str:
    """Return the format of an input: the one given, else by the extension; standard input is text.

    Raises:
        InvalidInputError: the extension is not known.
    """
    known = "text" if path == STDIN else EXTENSIONS.get(path.suffix.lower())
    if given is None and known is None:
        raise InvalidInputError(
            f"{path}: the extension {path.suffix!r} is not one of {', '.join(EXTENSIONS)}; name the format with "
            f"--input-format {'|'.join(FORMATS)}"
        )
    return given or known or "text"


def read_rows(paths: Sequence[Path], given: str | None, columns: Columns) -> Iterator[Row]:
    """Return the rows of all inputs, one input after another.

    Raises:
        InvalidInputError: now, if a file is missing or of no known format; when its turn comes, if it does not hold
            what it should. The message names the file and the row.
    """
    formats = [format_of(path, given) for path in paths]
    for path in paths:
        if path != STDIN and (path.is_dir() or not path.exists()):  # a pipe will do
            raise InvalidInputError(f"{path}: there is no such file")
    share = 1 / len(paths)
    return chain.from_iterable(
        _of_file(path, kind, columns, Share(i * share, share))
        for i, (path, kind) in enumerate(zip(paths, formats, strict=True))
    )


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the whole input that one file is."""

    start: float
    size: float

    def at(self, fraction: float | None) -> float | None:
        """Return how much of the whole lies behind a place in the file."""
        return None if fraction is None else self.start + self.size * fraction


def _of_file(path: Path, kind: str, columns: Columns, share: Share) -> Iterator[Row]:
    reader: Callable[[BinaryIO, Columns], Iterable[Row]] = _READERS[kind]
    name = "standard input" if path == STDIN else str(path)
    if path == STDIN and kind == "parquet":
        raise InvalidInputError("Parquet cannot be read from standard input; give the file")
    number = 0
    try:
        with _opened(path) as stream:
            for row in reader(stream, columns):
                number += 1
                yield row._replace(fraction=share.at(row.fraction if path != STDIN else None))
    except (_RowError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{name}, row {number + 1}: {error}") from None
    except (_ColumnError, pa.ArrowException) as error:
        raise InvalidInputError(f"{name}: {error}") from None
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror or error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with path.open("rb") as stream:
        yield stream


class _RowError(Exception):
    """What is wrong with the row that was being read."""


class _ColumnError(Exception):
    """Which column a file does not have."""


def _text(stream: BinaryIO, columns: Columns) -> Iterator[Row]:
    for line, fraction in _lines(stream):
        yield Row(line.decode("utf-8").removesuffix("\n").removesuffix("\r"), fraction=fraction)


def _jsonl(stream: BinaryIO, columns: Columns) -> Iterator[Row]:
    for line, fraction in _lines(stream):
        if not line.strip():
            continue
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _RowError(f"no JSON: {error}") from None
        if isinstance(values, str) and columns.query is None:
            values = {columns.text: values}
        if not isinstance(values, dict):
            raise _RowError(f"a {type(values).__name__} where an object with {columns.text!r} is expected")
        yield _row(values, columns, fraction)


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, float | None]]:
    """Yield lines and the fraction of the stream up to their ends."""
    size = _size(stream)
    done = 0
    while line := stream.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise _RowError(f"the line is longer than {_LONGEST_LINE >> 20} MiB")
        done += len(line)
        yield (line.removeprefix(b"\xef\xbb\xbf") if done == len(line) else line), done / size if size else None


def _size(stream: BinaryIO) -> int:
    if not stream.seekable():
        return 0
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size


def _parquet(stream: BinaryIO, columns: Columns) -> Iterator[Row]:
    file = pq.ParquetFile(stream)
    names = _names(file.schema_arrow, columns)
    batches = file.iter_batches(_BATCH_ROWS, columns=list(names.values()))
    return _of_batches(batches, columns, names, file.metadata.num_rows)


def _arrow(stream: BinaryIO, columns: Columns) -> Iterator[Row]:
    if stream.seekable() and stream.read(len(_ARROW_FILE)) == _ARROW_FILE:
        file = pa.ipc.open_file(stream)
        batches = (file.get_batch(i) for i in range(file.num_record_batches))
        return _of_batches(batches, columns, _names(file.schema, columns))
    if stream.seekable():
        stream.seek(0)
    reader = pa.ipc.open_stream(stream)
    return _of_batches(reader, columns, _names(reader.schema, columns))


def _names(schema: pa.Schema, columns: Columns) -> dict[str, str]:
    """Return the columns to read, by their roles."""
    wanted = {"text": columns.text, "query": columns.query, "id": columns.id}
    for name in wanted.values():
        if name is not None and name not in schema.names:
            raise _ColumnError(f"there is no column {name!r}; the file has {', '.join(schema.names)}")
    if columns.id is None and "id" in schema.names:
        wanted["id"] = "id"
    return {role: name for role, name in wanted.items() if name is not None}


def _of_batches(
    batches: Iterable[pa.RecordBatch], columns: Columns, names: Mapping[str, str], total: int | None = None
) -> Iterator[Row]:
    done = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(start, _BATCH_ROWS)
            values = [part[name].to_pylist() for name in names.values()]
            for cells in zip(*values, strict=True):
                done += 1
                yield _row(dict(zip(names.values(), cells, strict=True)), columns, done / total if total else None)


def _row(values: Mapping[str, Any], columns: Columns, fraction: float | None) -> Row:
    text = _string(values, columns.text)
    query = None if columns.query is None else _string(values, columns.query)
    identity = values.get(columns.id or "id")
    if columns.id is not None and identity is None:
        raise _RowError(f"it has no {columns.id!r}")
    if isinstance(identity, bool) or not isinstance(identity, str | int | None):
        raise _RowError(f"{columns.id or 'id'!r} is {_kind(identity)}; it must be a string or a whole number")
    return Row(text, None if identity is None else str(identity), query, fraction)


def _string(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        found = f"is {_kind(value)}" if name in values else f"is missing; there are {', '.join(map(repr, values))}"
        raise _RowError(f"{name!r} {found}, where a string is expected")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


_READERS: Mapping[str, Callable[[BinaryIO, Columns], Iterator[Row]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "arrow": _arrow,
}
