"""Folders that are whole or not there: written aside, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASIDE = ".aside-"  # such a folder belongs to a writer that may have been killed


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` at the end, unless an exception ends it.

    Raises:
        FileExistsError: `folder` is there already; it is left as it is.
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.parent / f"{ASIDE}{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        yield aside
        for path in sorted(aside.rglob("*")):
            _flush(path)
        _flush(aside)
        if folder.exists():
            raise FileExistsError(f"{folder} is there already")
        try:
            aside.rename(folder)
        except OSError as error:
            if folder.is_dir():  # another writer was quicker by a moment
                raise FileExistsError(f"{folder} is there already") from error
            raise
        _flush(folder.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder so that nobody finds half of it; one that is not there is fine."""
    aside = folder.parent / f"{ASIDE}{uuid.uuid4().hex}"
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def sweep(parent: Path, *, older_than_s: float = 0.0) -> None:
    """Remove what killed writers left in `parent`.

    Args:
        parent: of the folders that were being written.
        older_than_s: leaves what somebody may be writing now; 0 = nobody is.
    """
    if not parent.is_dir():
        return
    for left in parent.glob(f"{ASIDE}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime >= older_than_s:
                shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
