"""Arrow streams from strangers: read without trust, and without unpacking what was compressed."""

from __future__ import annotations

import struct

import pyarrow as pa
import pyarrow.ipc

from tercet.errors import InvalidInputError


def write_stream(batch: pa.RecordBatch) -> bytes:
    """Return the batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def read_stream(body: bytes) -> pa.RecordBatch:
    """Return the record batches of a stream as one, over the body's own memory where there is just one.

    Raises:
        InvalidInputError: no Arrow stream, one that is cut short, or a part of it is inconsistent, compressed or
            dictionary-encoded.
    """
    try:
        _refuse_unplain(body)
        batches = list(pa.ipc.open_stream(body))
        whole = batches[0] if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        whole.validate(full=True)
        names = whole.schema.names  # damaged ones are no UTF-8
    except (pa.ArrowException, ValueError, IndexError, OSError, EOFError) as error:
        raise InvalidInputError(f"the body is not a complete Arrow stream of record batches: {error}") from None
    if len(set(names)) < len(names):
        raise InvalidInputError("the Arrow stream has two columns of the same name")
    return whole


def _refuse_unplain(body: bytes) -> None:
    """Raise unless a stream is a schema and uncompressed record batches, and nothing else."""
    for i, message in enumerate(pa.ipc.MessageReader.open_stream(body)):
        wanted = "record batch" if i else "schema"
        if message.type != wanted:
            raise InvalidInputError(f"the Arrow stream holds a {message.type} where a {wanted} belongs; send it plain")
        if i and _compressed(message.metadata.to_pybytes()):
            raise InvalidInputError("the Arrow stream is compressed; send it uncompressed")


# A few compressed bytes can unpack to gigabytes and Arrow has no limit for that, so the flag is read from the message
# itself: https://arrow.apache.org/docs/format/Columnar.html, Message.fbs, and the FlatBuffers table layout.
_HEADER, _COMPRESSION = 2, 3


def _compressed(metadata: bytes) -> bool:
    """Whether a record batch's message says that its buffers are compressed; Arrow has verified the message."""
    (message,) = struct.unpack_from("<I", metadata)
    place = _field(metadata, message, _HEADER)
    (header,) = struct.unpack_from("<I", metadata, place)
    return _field(metadata, place + header, _COMPRESSION) != 0


def _field(metadata: bytes, table: int, slot: int) -> int:
    """Return where a FlatBuffers table's field is, 0 if it is absent."""
    (back,) = struct.unpack_from("<i", metadata, table)
    size, _ = struct.unpack_from("<HH", metadata, table - back)
    entry = 4 + 2 * slot
    if entry >= size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, table - back + entry)
    return table + offset if offset else 0
