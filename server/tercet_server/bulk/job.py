"""`Job`: an output made from an input, continued where it was cut short, complete or not there at all.

While it runs, finished chunks lie in a journal `OUTPUT.part`. When all are done they are written to `OUTPUT.tmp`,
which then takes the output's name; `OUTPUT.tercet.json` says what it was made with. The same command again continues
the journal, or finds that all is done.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tercet.errors import InvalidInputError, TercetError
from tercet.version import __version__
from tercet_server.bulk.journal import Journal, sync
from tercet_server.bulk.rows import Chunk, Reading, Row
from tercet_server.bulk.write import STREAMS, WRITERS

Work = Callable[[list[Row]], pa.RecordBatch]
Report = Callable[[int, float | None], None]  # rows done now, and the fraction of the input that is behind them

_AHEAD = 3  # chunks under way at once: one runs, one is tokenised, one waits


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    Attributes:
        settings: everything that decides what the output is, apart from the rows; plain JSON values.
        kind: the output's format.
        rows: the input.
        work: rows to results, one record batch; called from several threads.
        chunk_rows: how many rows are done at a time.
        report: told of progress.
    """

    settings: Mapping[str, Any]
    kind: str
    rows: Iterable[Row]
    work: Work
    chunk_rows: int
    report: Report

    def to_stream(self, stream: Any) -> int:
        """Write the results to a pipe as they come; return how many rows."""
        done = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal done
            for _, batch in self._results(Reading(self.rows)):
                done += batch.num_rows
                yield batch
            if not done:
                raise _no_rows()

        STREAMS[self.kind](stream, batches(), 0)
        return done

    def to_file(self, output: Path, overwrite: bool) -> int:
        """Make the output, or what is missing of it; return how many rows it has.

        Raises:
            InvalidInputError: the output is there already and was not made by this job, or what was begun is another
                job's; `overwrite` replaces both.
            TercetError: as `work` and the input do.
        """
        try:
            return (
                self._complete(_Files(output)) if output.exists() and not overwrite else self._make(output, overwrite)
            )
        except OSError as error:
            raise TercetError(f"{error.filename or output} cannot be written: {error.strerror or error}") from error

    def _complete(self, files: _Files) -> int:
        """Check that the output is this job's, all of it."""
        if files.settings() != self.settings:
            raise InvalidInputError(_refusal(files.output, files.settings(), self.settings))
        rows, digest = files.done()
        reading = Reading(self.rows)
        reading.skip(rows, digest)
        if not reading.at_end():
            raise InvalidInputError(
                f"the input has more than the {rows:,} rows of {files.output}; give --overwrite to make it anew"
            )
        files.journal.unlink(missing_ok=True)
        self.report(rows, 1.0)
        return rows

    def _make(self, output: Path, overwrite: bool) -> int:
        files, reading = _Files(output), Reading(self.rows)
        with self._journal(files.journal, overwrite) as journal:
            try:
                if journal.rows:
                    reading.skip(journal.rows, journal.digest)
                    self.report(journal.rows, None)
                for chunk, batch in self._results(reading):
                    journal.add(batch, chunk.digest)
                    self.report(batch.num_rows, chunk.rows[-1].fraction)
            finally:
                if not journal.rows:
                    journal.remove()
            if not journal.rows:
                raise _no_rows()
            files.finish(journal, self.kind)
            return journal.rows

    def _journal(self, path: Path, overwrite: bool) -> Journal:
        """Return the job's journal, begun or continued; another job's gives way if it holds nothing or may go."""
        journal = Journal.open(path, self.settings)
        if journal.settings == self.settings:
            return journal
        if journal.rows and not overwrite:
            journal.close()
            raise InvalidInputError(_refusal(path, journal.settings, self.settings))
        journal.remove()
        journal.close()
        return Journal.open(path, self.settings)

    def _results(self, reading: Reading) -> Iterator[tuple[Chunk, pa.RecordBatch]]:
        """Yield the chunks and their results in order, a few of them under way at once."""
        under_way: deque[tuple[Chunk, Future[pa.RecordBatch]]] = deque()
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="tercet-bulk")
        try:
            for chunk in reading.chunks(self.chunk_rows):
                under_way.append((chunk, pool.submit(self.work, chunk.rows)))
                if len(under_way) == _AHEAD:
                    yield _result(*under_way.popleft())
            while under_way:
                yield _result(*under_way.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(chunk: Chunk, future: Future[pa.RecordBatch]) -> tuple[Chunk, pa.RecordBatch]:
    try:
        return chunk, future.result()
    except TercetError as error:
        place = f"rows {chunk.first + 1:,} to {chunk.first + len(chunk.rows):,}"
        raise type(error)(f"{place}: {error.message}", retry_after_s=error.retry_after_s) from error


@dataclass(frozen=True, slots=True)
class _Files:
    """The output and what lies beside it."""

    output: Path

    @property
    def journal(self) -> Path:
        """Where finished chunks are kept."""
        return self._beside(".part")

    @property
    def record(self) -> Path:
        """Where it stands what the output was made with."""
        return self._beside(".tercet.json")

    def settings(self) -> Mapping[str, Any] | None:
        """Return what the output was made with; None when nobody can say, or when it was touched since."""
        known = self._record()
        return None if known is None else known["settings"]

    def done(self) -> tuple[int, bytes]:
        """Return how many rows the output has, and the digest of the input's."""
        known = self._record()
        assert known is not None
        return known["rows"], bytes.fromhex(known["input_digest"])

    def finish(self, journal: Journal, kind: str) -> None:
        """Turn the journal into the output, so that at any moment either it or the output is complete."""
        draft = self._beside(".tmp")
        with draft.open("wb") as stream:
            WRITERS[kind](stream, journal.batches(), journal.rows)
            sync(stream)
        metadata = journal.schema.metadata if journal.schema else {}
        record = {
            "tercet": __version__,
            "revision": metadata.get(b"revision", b"").decode() or None,
            "settings": journal.settings,
            "rows": journal.rows,
            "input_digest": journal.digest.hex(),
            "output": _identity(draft),
        }
        record_draft = self._beside(".tercet.json.tmp")
        with record_draft.open("wb") as stream:
            stream.write(json.dumps(record, indent=2).encode())
            sync(stream)
        record_draft.replace(self.record)
        draft.replace(self.output)
        _sync_directory(self.output.parent)
        journal.remove()

    def _record(self) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(self.record.read_bytes())
            return known if known["output"] == _identity(self.output) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(self.output.name + suffix)


def _identity(path: Path) -> dict[str, int]:
    """Return what tells whether a file has been touched."""
    status = path.stat()
    return {"size_bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refusal(path: Path, theirs: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> str:
    if theirs is None:
        return f"{path} is there already and was not made by this command; give another --output or --overwrite"
    changed = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    shown = ", ".join(f"{name} {theirs.get(name)!r}, now {ours.get(name)!r}" for name in changed)
    return f"{path} was made with other settings ({shown}); give the same ones, another --output, or --overwrite"


def _no_rows() -> InvalidInputError:
    return InvalidInputError("the input has no rows")
