"""The files of a dataset in a folder, none of which lies outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ml_backend.errors import TrainingError

MOST_FILES: Final = 200_000
_SKIPPED_FOLDERS: Final = frozenset({"__MACOSX"})


class DatasetFiles:
    """A dataset's root; files are named relative to it, with `/`."""

    def __init__(self, root: Path) -> None:
        """Find the root, links resolved.

        Raises:
            TrainingError: it is no folder on this machine.
        """
        try:
            self.root = root.expanduser().resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: ~ of an unknown user, a loop
            raise _no_folder(root) from error
        if not self.root.is_dir():
            raise _no_folder(root)

    def names(self, folders: Iterable[str] = ("",)) -> list[str]:
        """Return the name of every file in some folders and below, hidden ones left out.

        A link counts when it leads to a file inside of the root; folders behind links do not.

        Args:
            folders: Relative to the root; one that is not there has no files.

        Raises:
            TrainingError: there are too many, or the root cannot be read.
        """
        found: set[str] = set()
        try:
            next(os.scandir(self.root), None)
        except OSError as error:
            raise TrainingError(
                f"The folder {self.root} cannot be read ({error.strerror}); let this program's "
                "user read it."
            ) from error
        for top in folders:
            for name in self._names_below(self.root / top):
                found.add(name)
                if len(found) > MOST_FILES:
                    raise TrainingError(
                        f"{self.root} holds more than {MOST_FILES} files; name the folder that "
                        "holds the images and their masks and nothing else."
                    )
        return sorted(found)

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return "\0" not in name and self._is_inside(self.root / name)

    def _names_below(self, top: Path) -> Iterator[str]:
        if top.is_file() and self._is_inside(top):
            yield top.relative_to(self.root).as_posix()
        for folder, inner, files in os.walk(top):
            inner[:] = sorted(name for name in inner if _is_shown(name))
            for name in files:
                path = Path(folder, name)
                if _is_shown(name) and self._is_inside(path):
                    yield path.relative_to(self.root).as_posix()

    def path(self, name: str) -> Path:
        """Return where a file lies, links resolved.

        Raises:
            TrainingError: it is not there, or lies outside of the root.
        """
        if not self.has(name):
            raise TrainingError(f"There is no file {name[:200]!r} in the dataset {self.root}.")
        return (self.root / name).resolve()

    def _is_inside(self, path: Path) -> bool:
        try:
            real = path.resolve(strict=True)
            return real.is_relative_to(self.root) and real.is_file()
        except (OSError, RuntimeError):
            return False


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name not in _SKIPPED_FOLDERS


def _no_folder(root: Path) -> TrainingError:
    return TrainingError(
        f"There is no folder {str(root)!r} on this machine; name one that holds images and masks."
    )
