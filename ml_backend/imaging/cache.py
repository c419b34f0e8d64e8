"""Downloaded files on disk, shared by all processes of this machine.

    <root>/entries/<key>.json     where a file came from, when, and the hash of its content
    <root>/content/<sha256>       the content itself, once however many addresses lead to it
    <root>/incoming/<process>/    what is being written, locked by the process that writes it

Nothing is ever changed in place: content and entries are written aside, flushed to the disk and
renamed. A process that is killed leaves at most its folder under `incoming`, which the next start
removes because its lock is free.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ml_backend.domain import FetchedFile
from ml_backend.errors import ImageFetchError
from ml_backend.imaging.incoming import Incoming, open_incoming

_IN_USE_S = 120.0  # a file that was asked for this recently is not evicted: someone may read it


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is kept about a file besides its content."""

    checked_at: float  # seconds since the epoch: when it was last known to be current
    immutable: bool  # whether the address always leads to the same bytes
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in the cache and what is known about it."""

    file: FetchedFile
    origin: Origin


class DiskCache:
    """A folder of files with a size limit; the ones not asked for longest leave first."""

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int,
        life_s: float = 24 * 3600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a cache folder, making it where it is not there yet.

        Args:
            root: the folder, used by nothing else.
            max_bytes: how much content is kept; files in use may exceed it for a moment.
            life_s: for how long a file is served before its server is asked whether it changed.
            clock: seconds since the epoch.

        Raises:
            ImageFetchError: when the folder cannot be made.
        """
        self._root = root
        self._max_bytes = max_bytes
        self._life_s = life_s
        self._clock = clock
        self._verified: dict[str, int] = {}  # sha256 -> time of change (ns) it was hashed at
        self._lock = threading.Lock()
        try:
            for name in ("entries", "content", "incoming"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self._incoming, self._incoming_lock = open_incoming(root / "incoming")
        except OSError as error:
            raise self._cannot_write(error) from error
        self._hits, self._misses = 0, 0
        self._total = self._evict()

    @property
    def size(self) -> int:
        """Return about how many bytes are kept; other processes' files count from the next look."""
        return self._total

    @property
    def asked(self) -> tuple[int, int]:
        """Return how often a file was there when asked for, and how often it was not."""
        return self._hits, self._misses

    def close(self) -> None:
        """Give back the folder for incoming files."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming_lock.close()

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key when its content is there and whole."""
        entry = self._find(key)
        with self._lock:
            if entry is None:
                self._misses += 1
            else:
                self._hits += 1
        return entry

    def _find(self, key: str) -> Entry | None:
        try:
            raw = json.loads(self._entry_path(key).read_bytes())
            file = FetchedFile(
                path=self._content_path(str(raw["sha256"])),
                sha256=str(raw["sha256"]),
                size=int(raw["size"]),
            )
            origin = Origin(**raw["origin"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Entry(file=file, origin=origin) if self._is_whole(file) else None

    def is_fresh(self, entry: Entry) -> bool:
        """Return whether an entry may be served without asking its server."""
        age = self._clock() - entry.origin.checked_at
        return entry.origin.immutable or 0 <= age < self._life_s

    def origin(
        self,
        *,
        immutable: bool = False,
        etag: str | None = None,
        last_modified: str | None = None,
    ) -> Origin:
        """Return what is kept about a file that was known to be current just now."""
        return Origin(
            checked_at=self._clock(), immutable=immutable, etag=etag, last_modified=last_modified
        )

    @contextmanager
    def receive(self) -> Iterator[Incoming]:
        """Give a file to write to; it vanishes unless it is kept.

        Raises:
            ImageFetchError: when the disk is full or not writable.
        """
        path = self._incoming / uuid.uuid4().hex
        try:
            with path.open("wb") as file:
                yield Incoming(path, file)
        except OSError as error:
            raise self._cannot_write(error) from error
        finally:
            path.unlink(missing_ok=True)

    def keep(self, incoming: Incoming, *, key: str | None, origin: Origin) -> FetchedFile:
        """Move what was received into the cache, and return it.

        Args:
            incoming: completely written, still inside its `with` block.
            key: under which it is found again; None = only by its content.
            origin: what is kept about it.
        """
        incoming.flush()
        file = FetchedFile(
            path=self._content_path(incoming.sha256), sha256=incoming.sha256, size=incoming.size
        )
        os.replace(incoming.path, file.path)
        _flush_folder(file.path.parent)
        with self._lock:
            self._verified[file.sha256] = self._touch(file.path)
            self._total += file.size
        if key is not None:
            self.note(key, file, origin)
        if self._total > self._max_bytes:
            total = self._evict()
            with self._lock:
                self._total = total
        return file

    def note(self, key: str, file: FetchedFile, origin: Origin) -> None:
        """Record that `key` leads to `file`."""
        text = json.dumps({"sha256": file.sha256, "size": file.size, "origin": asdict(origin)})
        aside = self._incoming / uuid.uuid4().hex
        with aside.open("w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(aside, self._entry_path(key))

    def _is_whole(self, file: FetchedFile) -> bool:
        """Return whether content has its size and hash; the hash is read once per process."""
        try:
            found = file.path.stat()
            if found.st_size != file.size:
                return False
            if self._verified.get(file.sha256) != found.st_mtime_ns:
                with file.path.open("rb") as opened:
                    if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                        return False
            self._verified[file.sha256] = self._touch(file.path)
        except OSError:
            return False
        return True

    def _touch(self, path: Path) -> int:
        """Record that a file was asked for; return its time of change in nanoseconds.

        The time of access is set by hand: most disks are mounted so that reading does not.
        """
        changed = path.stat().st_mtime_ns
        os.utime(path, ns=(int(self._clock() * 1e9), changed))
        return changed

    def _evict(self) -> int:
        """Remove what was not asked for longest until the rest fits; return the bytes left."""
        now = self._clock()
        found = []
        for path in (self._root / "content").iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            found.append((status.st_atime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for asked_at, size, path in sorted(found):
            if total <= self._max_bytes or now - asked_at < _IN_USE_S:
                break
            path.unlink(missing_ok=True)
            self._verified.pop(path.name, None)
            total -= size
        self._forget_entries()
        return total

    def _forget_entries(self) -> None:
        """Remove entries whose content has left."""
        for path in (self._root / "entries").iterdir():
            try:
                sha256 = str(json.loads(path.read_bytes())["sha256"])
            except (OSError, ValueError, KeyError, TypeError):
                sha256 = ""
            if not sha256 or not self._content_path(sha256).exists():
                path.unlink(missing_ok=True)

    def _content_path(self, sha256: str) -> Path:
        if not sha256.isalnum():
            raise ValueError("a content hash is letters and digits")
        return self._root / "content" / sha256

    def _entry_path(self, key: str) -> Path:
        return self._root / "entries" / f"{key}.json"

    def _cannot_write(self, error: OSError) -> ImageFetchError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ImageFetchError(
                f"The disk of the image cache {self._root} is full; free some space or lower "
                "IMAGE_CACHE_MB."
            )
        return ImageFetchError(
            f"The image cache {self._root} cannot be written ({error.strerror}); "
            "set DATA_DIR to a folder of this user."
        )


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
