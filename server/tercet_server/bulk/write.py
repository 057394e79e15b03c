"""Results as JSON Lines, Parquet, Arrow or npy, one record batch after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tercet.errors import InvalidInputError
from tercet_server.bulk.read import EXTENSIONS as READABLE

STDOUT = Path("-")
FORMATS = ("jsonl", "parquet", "arrow", "npy")
EXTENSIONS: Mapping[str, str] = {
    **{extension: kind for extension, kind in READABLE.items() if kind != "text" and extension != ".arrows"},
    ".npy": "npy",
}
_GROUP_BYTES = 64 << 20  # of a Parquet row group before it is compressed


def format_of(path: Path, given: str | None) -> str:
    """Return the format of an output: the one given, else by the extension; standard output is JSON Lines.

    Raises:
        InvalidInputError: the extension is not known, or standard output cannot take the format.
    """
    known = "jsonl" if path == STDOUT else EXTENSIONS.get(path.suffix.lower())
    kind = given or known
    if kind is None:
        raise InvalidInputError(
            f"{path}: the extension {path.suffix!r} is not one of {', '.join(EXTENSIONS)}; name the format with "
            f"--format {'|'.join(FORMATS)}"
        )
    if path == STDOUT and kind not in STREAMS:
        raise InvalidInputError(f"{kind} cannot be written to standard output; name a file with --output")
    return kind


class Write(Protocol):
    """How a format is written; batches come in order and have one schema."""

    def __call__(self, stream: BinaryIO, batches: Iterable[pa.RecordBatch], rows: int) -> None:
        """Write all batches, `rows` rows together."""


def jsonl(stream: BinaryIO, batches: Iterable[pa.RecordBatch], rows: int = 0) -> None:
    """Write one JSON object a line; numbers in the fewest digits that give back the same float32."""
    for batch in batches:
        columns = [cells(column) for column in batch.columns]
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        lines = (
            orjson.dumps(dict(zip(batch.schema.names, values, strict=True)), option=options)
            for values in zip(*columns, strict=True)
        )
        stream.write(b"".join(lines))
        stream.flush()


def arrow_stream(stream: BinaryIO, batches: Iterable[pa.RecordBatch], rows: int = 0) -> None:
    """Write an Arrow IPC stream."""
    first, batches = _peeked(batches)
    with pa.ipc.new_stream(stream, first.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def arrow(stream: BinaryIO, batches: Iterable[pa.RecordBatch], rows: int) -> None:
    """Write an Arrow IPC file, which readers can map into memory."""
    first, batches = _peeked(batches)
    with pa.ipc.new_file(stream, first.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def parquet(stream: BinaryIO, batches: Iterable[pa.RecordBatch], rows: int) -> None:
    """Write a Parquet file, its row groups of about 64 MiB."""
    first, batches = _peeked(batches)
    with pq.ParquetWriter(stream, first.schema, compression="zstd") as writer:
        group: list[pa.RecordBatch] = []
        for batch in batches:
            group.append(batch)
            if sum(part.nbytes for part in group) >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group))


def npy(stream: BinaryIO, batches: Iterable[pa.RecordBatch], rows: int) -> None:
    """Write the vectors or the scores alone as one array, (rows, d) or (rows,)."""
    first, batches = _peeked(batches)
    column = "dense" if "dense" in first.schema.names else "score"
    values = np.asarray(cells(first[column]))
    header = {
        "descr": np.lib.format.dtype_to_descr(values.dtype),
        "fortran_order": False,
        "shape": (rows, *values.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(stream, header)
    for batch in batches:
        stream.write(np.ascontiguousarray(cells(batch[column])).data)


WRITERS: Mapping[str, Write] = {"jsonl": jsonl, "parquet": parquet, "arrow": arrow, "npy": npy}
STREAMS: Mapping[str, Write] = {"jsonl": jsonl, "arrow": arrow_stream}


def cells(array: pa.Array) -> Any:
    """Return a column's values by row: numbers and lists of numbers as numpy has them, structs as dicts."""
    kind = array.type
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        parts = zip(*(cells(array.field(name)) for name in names), strict=True)
        return [dict(zip(names, values, strict=True)) for values in parts]
    if pa.types.is_fixed_size_list(kind):
        return np.asarray(cells(array.flatten())).reshape(len(array), kind.list_size)
    if pa.types.is_list(kind):
        values, offsets = cells(array.flatten()), array.offsets.to_numpy() - array.offsets[0].as_py()
        return [values[start:end] for start, end in pairwise(offsets)]
    numeric = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return array.to_numpy(zero_copy_only=False) if numeric else array.to_pylist()


def _peeked(batches: Iterable[pa.RecordBatch]) -> tuple[pa.RecordBatch, Iterable[pa.RecordBatch]]:
    """Return the first batch, and all of them; there is always one."""
    iterator = iter(batches)
    first = next(iterator)
    return first, chain([first], iterator)
