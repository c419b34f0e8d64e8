"""Hashes of files that may be gigabytes large, computed once for each file that did not change."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Final

from ml_backend.errors import ModelNotFound

_CHUNK: Final = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the hash of a file in hex; of a file that did not change it is computed once.

    Raises:
        ModelNotFound: the file cannot be read.
    """
    try:
        facts = path.stat()
        return _hash_of(str(path), facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise ModelNotFound(f"The weights {path} cannot be read: {error.strerror}.") from error


def forget_hashes() -> None:
    """Have every file read again: damage to a disk changes neither size nor time."""
    _hash_of.cache_clear()


@lru_cache(maxsize=64)
def _hash_of(path: str, _size: int, _changed_ns: int) -> str:
    # size and time are part of the cache's key, so that a replaced file is hashed again
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
