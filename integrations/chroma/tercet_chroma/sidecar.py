"""`Sidecar`: the sparse and multivector vectors of a collection, in one SQLite file beside Chroma.

Everything in it follows from the documents that Chroma holds, so what is lost can be made again. A write first notes
the ids it is about to touch (`intend`), then goes to Chroma, then stores the vectors and strikes the ids off in one
transaction (`put`, `remove`). Ids still noted when nobody is writing are those of a write that broke off.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import OverloadedError
from tercet.types import MultiVectorBatch, Output, SparseVector
from tercet.vector_spec import Fingerprint

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pending (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, mark TEXT NOT NULL,
    terms BLOB, dtype TEXT, width INTEGER, tokens BLOB
);
CREATE TABLE IF NOT EXISTS postings (term INTEGER, row INTEGER, weight REAL, PRIMARY KEY (term, row)) WITHOUT ROWID;
"""
_LISTED = "(SELECT value FROM json_each(?))"
_BEST = """
SELECT id, score FROM (
    SELECT postings.row AS row, SUM(postings.weight * json_extract(asked.value, '$[1]')) AS score
    FROM json_each(?) AS asked CROSS JOIN postings ON postings.term = json_extract(asked.value, '$[0]')
    {where} GROUP BY postings.row ORDER BY score DESC, postings.row LIMIT ?
) JOIN documents USING (row) ORDER BY score DESC, row
"""
_LOCK_WAIT_S = 60.0


class Sidecar:
    """Vectors by document id. Thread-safe; several processes may share a file, one of them writing at a time.

    Args:
        path: the file, made if it is missing; None keeps everything in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._guard = threading.RLock()  # of the connection
        self._writing = threading.Lock()  # one write at a time in this process, `_turn` among all processes
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._data = _connection(path or ":memory:")
        self._turn = None if path is None else _connection(path.with_suffix(".lock"))
        self._data.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {_TABLES}")

    def close(self) -> None:
        """Close the file; nothing is waiting to be written."""
        with self._guard:
            self._data.close()
            if self._turn is not None:
                self._turn.close()

    @contextmanager
    def writer(self, wait: bool = True) -> Iterator[bool]:
        """Make this the only writer; what it yields says whether it is, which is certain with `wait`.

        Raises:
            OverloadedError: another process has been writing for a minute.
        """
        got = self._writing.acquire(blocking=wait)
        try:
            with self._turn_taken(wait if got else None) as taken:
                yield taken
        finally:
            if got:
                self._writing.release()

    def fingerprint(self) -> Fingerprint | None:
        """Return what `set_fingerprint` stored, if anything."""
        found = self._rows("SELECT value FROM facts WHERE name = 'fingerprint'")
        return json.loads(found[0][0]) if found else None

    def set_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Store what makes the vectors."""
        with self._transaction() as data:
            data.execute("INSERT OR REPLACE INTO facts VALUES ('fingerprint', ?)", [json.dumps(fingerprint)])

    def clear(self) -> None:
        """Forget all vectors and what made them."""
        with self._transaction() as data:
            for table in ("facts", "documents", "postings"):
                data.execute(f"DELETE FROM {table}")

    def __len__(self) -> int:
        count: int = self._rows("SELECT COUNT(*) FROM documents")[0][0]
        return count

    def pending(self) -> list[str]:
        """Return the ids noted and not struck off."""
        return [row[0] for row in self._rows("SELECT id FROM pending ORDER BY id")]

    def marks(self, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Return the marks of the documents that are here, by id; of all of them under None."""
        if ids is None:
            return dict(self._rows("SELECT id, mark FROM documents"))
        return dict(self._rows(f"SELECT id, mark FROM documents WHERE id IN {_LISTED}", json.dumps(ids)))

    def intend(self, ids: Sequence[str]) -> None:
        """Note that these documents are about to change in Chroma; it is on disk when this returns."""
        with self._transaction() as data:
            data.executemany("INSERT OR IGNORE INTO pending VALUES (?)", [(key,) for key in ids])

    def put(self, marks: Mapping[str, str], columns: Mapping[Output, Any], settled: Collection[str] = ()) -> None:
        """Store documents' vectors in place of what was there, and strike them off.

        Args:
            marks: by id, in the order of the columns' rows; an empty one has no vectors and no row in them.
            columns: a `SparseBatch` and a `MultiVectorBatch`, by output.
            settled: further ids to strike off.
        """
        with self._transaction() as data:
            self._forget(data, list(marks))
            row = data.execute("SELECT COALESCE(MAX(row), 0) FROM documents").fetchone()[0]
            for i, (key, mark) in enumerate(marks.items()):
                sparse = columns["sparse"][i] if mark and "sparse" in columns else None
                matrix = columns["multivector"][i] if mark and "multivector" in columns else None
                _insert(data, row + 1 + i, key, mark, sparse, matrix)
            _strike_off(data, [*marks, *settled])

    def remove(self, ids: Sequence[str]) -> None:
        """Forget documents, and strike them off."""
        with self._transaction() as data:
            self._forget(data, ids)
            _strike_off(data, ids)

    def search(
        self, query: SparseVector, k: int, among: Sequence[str] | None = None, idf: bool = False
    ) -> dict[str, float]:
        """Return up to k ids of documents that share a term with the query, with their dot products, best first.

        Args:
            query: its sparse vector.
            k: how many.
            among: only these ids may be found.
            idf: weight each term by ln(1 + (n − df + ½) / (df + ½)), n and df over the whole collection.
        """
        with self._guard:
            weights = query.values * self._idf(query.indices) if idf else query.values
            asked = json.dumps([*zip(query.indices.tolist(), weights.tolist(), strict=True)])
            if among is None:
                found = self._rows(_BEST.format(where=""), asked, k)
            else:
                where = f"WHERE postings.row IN (SELECT row FROM documents WHERE id IN {_LISTED})"
                found = self._rows(_BEST.format(where=where), asked, json.dumps(among), k)
        return {row[0]: row[1] for row in found}

    def matrices(self, ids: Sequence[str], width: int) -> MultiVectorBatch:
        """Return the documents' token vectors in the order of the ids, `width` wide; none for those without."""
        sql = f"SELECT id, dtype, width, tokens FROM documents WHERE tokens IS NOT NULL AND id IN {_LISTED}"
        found = {
            key: np.frombuffer(tokens, dtype).reshape(-1, columns).astype(np.float32, copy=False)
            for key, dtype, columns, tokens in self._rows(sql, json.dumps(ids))
        }
        nothing = np.empty((0, width), np.float32)
        return MultiVectorBatch.from_rows([found.get(key, nothing) for key in ids], width)

    def _idf(self, terms: NDArray[np.uint32]) -> NDArray[np.float32]:
        sql = f"SELECT term, COUNT(*) FROM postings WHERE term IN {_LISTED} GROUP BY term"
        holding = dict(self._rows(sql, json.dumps(terms.tolist())))
        df = np.array([holding.get(term, 0) for term in terms.tolist()], np.float64)
        return np.log1p((len(self) - df + 0.5) / (df + 0.5)).astype(np.float32)

    def _forget(self, data: sqlite3.Connection, ids: Sequence[str]) -> None:
        listed = json.dumps(ids)
        for row, terms in self._rows(f"SELECT row, terms FROM documents WHERE id IN {_LISTED}", listed):
            held = np.frombuffer(terms or b"", np.uint32).tolist()
            data.executemany("DELETE FROM postings WHERE term = ? AND row = ?", [(term, row) for term in held])
        data.execute(f"DELETE FROM documents WHERE id IN {_LISTED}", [listed])

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._guard:
            return self._data.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _committed(self._data, "IMMEDIATE"):
            yield self._data

    @contextmanager
    def _turn_taken(self, wait: bool | None) -> Iterator[bool]:
        """Yield whether no other process writes now; None is a no that asks nobody."""
        if wait is None or self._turn is None:
            yield wait is not None
            return
        self._turn.execute(f"PRAGMA busy_timeout = {int(1000 * _LOCK_WAIT_S) if wait else 0}")
        try:
            self._turn.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if wait:
                raise OverloadedError(
                    f"another process has been writing to this collection for {_LOCK_WAIT_S:g} s; try again later"
                ) from error
            yield False
            return
        try:
            yield True
        finally:
            self._turn.execute("ROLLBACK")


def _connection(where: Path | str) -> sqlite3.Connection:
    """Return a connection that commits when it is told to, usable from any thread that holds its lock."""
    return sqlite3.connect(where, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)


@contextmanager
def _committed(connection: sqlite3.Connection, mode: str) -> Iterator[None]:
    connection.execute(f"BEGIN {mode}")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _insert(
    data: sqlite3.Connection, row: int, key: str, mark: str, sparse: SparseVector | None, matrix: NDArray[Any] | None
) -> None:
    terms = None if sparse is None else sparse.indices.astype(np.uint32).tobytes()
    tokens = (None, None, None) if matrix is None else (matrix.dtype.str, matrix.shape[1], matrix.tobytes())
    data.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", [row, key, mark, terms, *tokens])
    if sparse is not None:
        postings = zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True)
        data.executemany("INSERT INTO postings VALUES (?, ?, ?)", ((term, row, weight) for term, weight in postings))


def _strike_off(data: sqlite3.Connection, ids: Sequence[str]) -> None:
    data.execute(f"DELETE FROM pending WHERE id IN {_LISTED}", [json.dumps(ids)])


def erase(path: Path) -> None:
    """Delete a sidecar's files."""
    for file in (path, path.with_suffix(".lock"), *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        file.unlink(missing_ok=True)
