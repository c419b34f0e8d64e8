"""A folder of DATA_DIR that one engine has for itself while it runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_backend.errors import StoreError
from ml_backend.imaging.incoming import open_incoming


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Give a folder of this process below `parent`, and remove those of engines that are gone.

    Raises:
        StoreError: there is no such folder and none can be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder, lock = open_incoming(parent)
    except OSError as error:
        raise StoreError(
            f"{parent} cannot be made or written ({error.strerror or error}); see to the room on "
            "its disk and to its permissions."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
