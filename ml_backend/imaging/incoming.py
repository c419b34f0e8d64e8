"""Files on their way into the cache, in a folder that each process locks for itself."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import IO


class Incoming:
    """A file that is being received; its hash and size grow with it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def flush(self) -> None:
        """Put everything on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def sha256(self) -> str:
        """Return the hash of what was written so far."""
        return self._hash.hexdigest()


def open_incoming(parent: Path) -> tuple[Path, IO[bytes]]:
    """Make this process's own folder, and remove those of processes that are gone."""
    # The lock on the parent keeps others from taking a folder for abandoned between its making
    # and its locking.
    with (parent / ".lock").open("wb") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        for folder in parent.iterdir():
            if folder.is_dir() and _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        own = parent / uuid.uuid4().hex
        own.mkdir()
        lock = (own / ".lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return own, lock


def _is_abandoned(folder: Path) -> bool:
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
