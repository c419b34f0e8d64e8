"""Files of tasks under names that end as their addresses do.

The cache names files by the hash of their content. Some programs go by the ending, and expect one.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from ml_backend.domain import FetchedFile

_ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}")
_SWEEP_EVERY = 256  # links that were made


class NamedFiles:
    """A folder of links into the cache; those that lead nowhere any more are swept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def name(self, file: FetchedFile, address: str) -> Path:
        """Return a path of a file in the cache that ends like its address."""
        ending = ending_of(address)
        if ending is None:
            return file.path
        link = self._folder / f"{file.sha256}{ending}"
        try:
            if not link.exists():
                self._make(link, file.path)
        except OSError:  # a file system without links
            return file.path
        return link

    def _make(self, link: Path, target: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._made % _SWEEP_EVERY == 0:
            self._sweep()
        self._made += 1
        aside = self._folder / f".{uuid.uuid4().hex}"
        aside.symlink_to(target.resolve())
        os.replace(aside, link)

    def _sweep(self) -> None:
        for link in self._folder.iterdir():
            if not link.exists():
                with contextlib.suppress(OSError):
                    link.unlink()


def ending_of(address: str) -> str | None:
    """Return the ending of the file's name in an address, None where there is none."""
    try:
        parts = urlsplit(address)
        named = parse_qs(parts.query).get("d", [parts.path])[0]  # of Label Studio's local files
    except ValueError:
        return None
    ending = PurePosixPath(unquote(named)).suffix
    return ending if _ENDING.fullmatch(ending) else None
