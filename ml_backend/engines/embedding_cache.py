"""Embeddings on disk, in one SQLite file that all processes of this machine share.

A vector is found by what it was made from (the caller's content key: of pixels, crop and whatever
else decides them) and the hash of the embedder. The cache never fails its user: what cannot be
read is missing, what cannot be kept is not, and a damaged file is set aside and begun anew, each
with a warning in the log. A transaction is there as a whole or not at all, also after kill -9.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

log = structlog.get_logger(__name__)

FloatArray = npt.NDArray[np.float32]
Result = TypeVar("Result")

TOUCHED_EVERY_S: Final = 3600.0  # when a vector was last used is known to the hour, which is cheap
FULL_TO: Final = 0.9  # of the size limit, after eviction; so that not every write evicts
PAGE_SIZE: Final = 16_384  # bytes; of SQLite's 4096 half would be empty beside one vector of 2 kB
WAITS_TO_WRITE_S: Final = 10.0
WAITS_TO_READ_S: Final = 1.0
_KEYS_AT_ONCE: Final = 500  # SQLite takes at least 999 parameters
_VECTORS_AT_ONCE: Final = 1000  # in one transaction, so that others get their turn

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS embeddings (
    embedder TEXT NOT NULL,       -- sha256
    key TEXT NOT NULL,            -- of the content
    vector BLOB NOT NULL,         -- float32, little endian
    checksum INTEGER NOT NULL,    -- CRC-32 of all three, as SQLite itself keeps none
    touched INTEGER NOT NULL,     -- seconds since the epoch
    PRIMARY KEY (embedder, key)
);
CREATE INDEX IF NOT EXISTS embeddings_touched ON embeddings (touched);
"""


_SELECT: Final = """
SELECT rowid, key, vector, checksum, touched FROM embeddings WHERE embedder = ? AND key IN (?s)
"""


class EmbeddingCache:
    """Vectors by content key and embedder; safe for many threads and processes."""

    def __init__(
        self, path: Path, max_mb: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Describe a cache; its file is opened when it is first used.

        Args:
            path: of the SQLite file; `-wal`, `-shm`, `.lock` and `.damaged` may lie beside it.
            max_mb: how large the file may become; what was not used longest leaves first.
            clock: seconds since the epoch.
        """
        self._path = path
        self._max_bytes = int(max_mb * 1e6)
        self._clock = clock
        self._counting = threading.Lock()
        self.asked = (0, 0)  # vectors that were there when asked for, and that were not
        # reading never waits for a write of another thread, which may wait for another process
        self._reader = _Connection(path, WAITS_TO_READ_S)
        self._writer = _Connection(path, WAITS_TO_WRITE_S)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._writer.close()

    def get_many(self, keys: Iterable[str], embedder: str) -> dict[str, FloatArray]:
        """Return the vectors that are kept, by key; each (D,) float32, for the caller to keep.

        Args:
            keys: of the content.
            embedder: its sha256.
        """
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        read = partial(self._read, keys=wanted, embedder=embedder)
        nothing: dict[str, FloatArray] = {}
        found = self._try(self._reader, read, nothing)
        with self._counting:
            hits, misses = self.asked
            self.asked = (hits + len(found), misses + len(wanted) - len(found))
        return found

    def put_many(self, vectors: Mapping[str, FloatArray], embedder: str) -> None:
        """Keep vectors by key; what there was under a key is replaced.

        Args:
            vectors: each (D,) float32.
            embedder: its sha256.
        """
        now = int(self._clock())
        rows = []
        for key, vector in vectors.items():
            blob = np.ascontiguousarray(vector, "<f4").tobytes()
            rows.append((embedder, key, blob, _checksum(blob, key, embedder), now))
        for start in range(0, len(rows), _VECTORS_AT_ONCE):
            some = rows[start : start + _VECTORS_AT_ONCE]
            self._try(self._writer, partial(self._write, rows=some), None)

    def _read(
        self, database: sqlite3.Connection, keys: Sequence[str], embedder: str
    ) -> dict[str, FloatArray]:
        now = int(self._clock())
        found: dict[str, FloatArray] = {}
        stale = []
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            query = _SELECT.replace("?s", marks)
            rows = database.execute(query, (embedder, *some))
            for number, key, blob, checksum, touched in rows:
                if _checksum(blob, key, embedder) != checksum or len(blob) % 4:
                    continue  # made again, and then replaced
                found[key] = np.frombuffer(blob, "<f4").astype(np.float32)
                if abs(now - touched) >= TOUCHED_EVERY_S:
                    stale.append((now, number))
        if stale:
            # when others write just now it is done another time
            with suppress(sqlite3.OperationalError), _transaction(database):
                database.executemany("UPDATE embeddings SET touched = ? WHERE rowid = ?", stale)
        return found

    def _write(
        self, database: sqlite3.Connection, rows: Sequence[tuple[str, str, bytes, int, int]]
    ) -> None:
        with _transaction(database):
            database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?, ?)", rows)
            self._evict(database)

    def _evict(self, database: sqlite3.Connection) -> None:
        used = _used_bytes(database)
        if used <= self._max_bytes:
            return
        (count,) = database.execute("SELECT COUNT(*) FROM embeddings").fetchone()
        leaving = math.ceil(count * (1 - FULL_TO * self._max_bytes / used))
        database.execute(
            "DELETE FROM embeddings WHERE rowid IN "
            "(SELECT rowid FROM embeddings ORDER BY touched, rowid LIMIT ?)",
            (leaving,),
        )
        log.info("embeddings evicted", vectors=leaving, of=count)

    def _try(
        self,
        connection: _Connection,
        work: Callable[[sqlite3.Connection], Result],
        instead: Result,
    ) -> Result:
        """Return what `work` returns, or `instead` where the file does not let it."""
        for _ in range(2):
            try:
                with connection.opened() as database:
                    return work(database)
            except (OSError, sqlite3.OperationalError) as error:
                # locked for too long, full or not writable; the file may still be whole
                log.warning("embedding cache unusable", path=str(self._path), error=str(error))
                return instead
            except sqlite3.DatabaseError as error:
                self._begin_anew(connection.file, error)
        return instead

    def _begin_anew(self, damaged: int | None, error: sqlite3.DatabaseError) -> None:
        self.close()
        aside = self._path.with_name(self._path.name + ".damaged")
        with suppress(OSError), _only_process(self._path):
            if _file_number(self._path) != damaged:
                return  # another process was quicker
            # before the file itself: SQLite would take them for those of the new one
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            os.replace(self._path, aside)
            log.warning(
                "embedding cache damaged, begun anew",
                path=str(self._path),
                kept_as=aside.name,
                error=str(error),
            )


class _Connection:
    """One connection to a SQLite file, used by one thread at a time; a fork opens its own."""

    def __init__(self, path: Path, waits_s: float) -> None:
        self.file: int | None = None  # which file was opened last
        self._path, self._waits_s = path, waits_s
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._database: sqlite3.Connection | None = None
        self._of_parents: list[sqlite3.Connection | None] = []

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread.

        Raises:
            sqlite3.Error, OSError: the file cannot be used.
        """
        if self._process != os.getpid():
            # the parent's connection is neither used nor closed in here: its locks are not ours
            self._of_parents.append(self._database)
            self._process, self._lock, self._database = os.getpid(), threading.Lock(), None
        with self._lock:
            if self._database is not None and _file_number(self._path) != self.file:
                self._database.close()  # another process has set the file aside
                self._database = None
            if self._database is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with _only_process(self._path):
                    self._path.touch()
                    self.file = _file_number(self._path)
                    self._database = _open(self._path, self._waits_s)
            yield self._database

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            if self._database is not None and self._process == os.getpid():
                self._database.close()
                self._database = None


def _open(path: Path, waits_s: float) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=waits_s, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # of a file that is still empty
        database.execute("PRAGMA journal_mode = WAL")
        # whole after a crash of the machine too; at worst the last vectors are missing
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA journal_size_limit = 16000000")
        columns = database.execute("PRAGMA table_info(embeddings)").fetchall()
        if not columns:
            with _transaction(database):
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
        elif [column[1] for column in columns] != _COLUMNS:
            raise sqlite3.DatabaseError("the table has other columns")
    except BaseException:  # also a wish to stop: raised again, no open file is left behind
        database.close()
        raise
    return database


_COLUMNS: Final = ["embedder", "key", "vector", "checksum", "touched"]


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")  # waits for its turn; a deferred one would fail later
    try:
        yield
        database.execute("COMMIT")
    except BaseException:  # also a wish to stop: raised again, no lock is left behind
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _checksum(vector: bytes, key: str, embedder: str) -> int:
    return zlib.crc32(vector, zlib.crc32(f"{embedder} {key}".encode()))


def _used_bytes(database: sqlite3.Connection) -> int:
    (pages,), (free,), (size,) = (
        database.execute(f"PRAGMA {name}").fetchone()
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _file_number(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel gives back when the process dies."""
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
