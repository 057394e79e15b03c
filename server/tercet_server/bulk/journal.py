"""`Journal`: finished chunks on disk, in order; whatever a kill leaves of it, its whole frames are good.

A frame is a header (sizes, rows, the digest of the input so far, a checksum) and an Arrow stream of one record batch.
The first frame holds the job's settings instead. A frame that is cut short or damaged ends the journal, and what it
held is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa

from tercet.errors import TercetError
from tercet.wire.stream import read_stream, write_stream

if sys.platform != "win32":
    import fcntl

_HEADER = struct.Struct("<QQ32s32s")  # bytes of the payload, rows in it, digest of the input's rows, checksum


@dataclass(frozen=True, slots=True)
class Frame:
    """A chunk's result as it is stored, and the digest of all input rows up to its last."""

    rows: int
    digest: bytes
    payload: bytes

    def header(self) -> bytes:
        """Return what stands before the payload."""
        return _HEADER.pack(len(self.payload), self.rows, self.digest, self._checksum())

    def is_whole(self, checksum: bytes) -> bool:
        """Whether the frame is the one that was written."""
        return self._checksum() == checksum

    def _checksum(self) -> bytes:
        known = struct.pack("<QQ32s", len(self.payload), self.rows, self.digest)
        return hashlib.blake2b(self.payload, digest_size=32, key=known).digest()


class Journal:
    """One job's finished chunks; open it with `open` and use it as a context manager.

    Attributes:
        settings: of the job that it belongs to.
        rows: how many are done. digest: of those rows of the input.
        schema: of the results so far; None while there are none.
    """

    def __init__(self, path: Path, stream: BinaryIO, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.rows = 0
        self.digest = b""
        self.schema: pa.Schema | None = None
        self._stream = stream

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Self:
        """Return the journal at `path`, with its own settings if it was begun before, else begun with these.

        Raises:
            TercetError: another process writes to it.
        """
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            _lock(stream, path)
            first = next(_frames(stream), None)
            if first is None:
                stream.seek(0)
                stream.truncate()
                journal = cls(path, stream, settings)
                journal._append(Frame(0, b"", json.dumps(settings).encode()))
            else:
                journal = cls(path, stream, json.loads(first.payload))
                journal._recover()
        except BaseException:
            stream.close()
            raise
        return journal

    def add(self, batch: pa.RecordBatch, digest: bytes) -> None:
        """Keep a chunk's result; once this returns, it survives a kill and a power cut.

        Raises:
            TercetError: its columns, model or revision are not those of the chunks before.
        """
        if self.schema is not None and not batch.schema.equals(self.schema, check_metadata=True):
            raise TercetError(
                f"the results have changed since the rows before, from {_shown(self.schema)} to "
                f"{_shown(batch.schema)}; bring that model back, or --overwrite to start anew"
            )
        self._append(Frame(batch.num_rows, digest, write_stream(batch)))
        self.schema = batch.schema
        self.rows += batch.num_rows
        self.digest = digest

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the results in order."""
        self._stream.seek(0)
        for frame in _frames(self._stream):
            if frame.rows:
                yield read_stream(frame.payload)

    def remove(self) -> None:
        """Delete the journal."""
        self.path.unlink()

    def close(self) -> None:
        """Let go of the file and of its lock."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _recover(self) -> None:
        """Find out what is done and cut off what is not whole."""
        end = 0
        self._stream.seek(0)
        for frame in _frames(self._stream):
            end = self._stream.tell()
            if frame.rows:
                self.rows += frame.rows
                self.digest = frame.digest
                self.schema = self.schema or read_stream(frame.payload).schema
        self._stream.seek(end)
        self._stream.truncate()

    def _append(self, frame: Frame) -> None:
        self._stream.seek(0, os.SEEK_END)
        self._stream.write(frame.header())
        self._stream.write(frame.payload)
        sync(self._stream)


def sync(stream: BinaryIO) -> None:
    """Bring what was written onto the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def _frames(stream: BinaryIO) -> Iterator[Frame]:
    """Yield the whole frames from here on; the stream then stands behind the one yielded last."""
    while True:
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        size, rows, digest, checksum = _HEADER.unpack(header)
        left = os.fstat(stream.fileno()).st_size - stream.tell()
        if size > left:
            return
        frame = Frame(rows, digest, stream.read(size))
        if not frame.is_whole(checksum):
            return
        yield frame


def _lock(stream: BinaryIO, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise TercetError(f"another process is writing {path.with_suffix('')}; wait for it or stop it") from None


def _shown(schema: pa.Schema) -> str:
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    columns = ", ".join(f"{field.name} {field.type}" for field in schema)
    return f"{metadata.get('model')} at revision {metadata.get('revision')} with {columns}"
