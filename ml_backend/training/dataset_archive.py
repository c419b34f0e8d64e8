"""Archives of datasets, unpacked so that nothing in them can do harm.

Only files and folders are made, only inside of the target, and no more of them and no larger ones
than was agreed: an archive says what it likes about itself.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from ml_backend.errors import TrainingError
from ml_backend.model_files.folders import written_aside

_CHUNK: Final = 1 << 20
_LONGEST_NAME: Final = 1000  # characters
_LARGEST_HEADER: Final = 64_000_000  # bytes that are read at once, or of a zip's directory
_DIRECTORY_ENDS: Final = b"PK\x05\x06"
_LOCATOR_64: Final = b"PK\x06\x07"  # of large archives, in front of it
_END_WITHIN: Final = 65_557 + 76  # bytes from the end of a zip
_BROKEN: Final = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
    *(NotImplementedError, RuntimeError, ValueError, UnicodeError),
)


_COMPRESSIONS: Final[Mapping[bytes, Callable[[IO[bytes]], Any]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """How much may come out of an archive."""

    files: int = 100_000
    unpacked: int = 16_000_000_000  # bytes in all
    ratio: float = 200.0  # unpacked to packed, once more than `ratio_from` came out
    ratio_from: int = 256_000_000  # bytes


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    open: Callable[[], IO[bytes]] | None  # None = a folder
    refused: str | None = None  # what it is, where that is not unpacked


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or tar archive."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (OSError, *_BROKEN):
        return False


def unpack(
    archive: Path,
    folder: Path,
    *,
    limits: ArchiveLimits = ArchiveLimits(),
    on_file: Callable[[], None] = lambda: None,
) -> None:
    """Unpack a zip or tar archive (.gz, .bz2 and .xz too) into a folder, which is new.

    Args:
        archive: the file.
        folder: is made, and is whole or not there.
        limits: what may come out of it.
        on_file: is told before each file; may raise to stop.

    Raises:
        TrainingError: it is no archive, damaged, encrypted, too large, or names what must not be
            unpacked: a link, a device, a place outside of the folder.
        OSError: the disk is full or cannot be written.
    """
    try:
        with _members(archive, limits) as members, written_aside(folder) as aside:
            _unpack(members, aside, limits, archive.stat().st_size, on_file)
    except _BROKEN as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise TrainingError(
            f"The archive {archive.name} cannot be unpacked ({said.rstrip('.')}); pack the images "
            "and masks again, as .zip or .tar.gz without a password."
        ) from error


def _unpack(
    members: Iterator[_Member],
    folder: Path,
    limits: ArchiveLimits,
    packed: int,
    on_file: Callable[[], None],
) -> None:
    unpacked = files = 0
    for member in members:
        parts = _parts(member.name)
        if member.refused is not None:
            raise TrainingError(
                f"The archive holds {member.name[:200]!r}, which is {member.refused} and is not "
                "unpacked; pack the files themselves."
            )
        if member.open is None or not parts:
            continue
        on_file()
        files += 1
        if files > limits.files:
            raise TrainingError(f"The archive holds more than {limits.files} files; pack fewer.")
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise TrainingError(f"The archive holds {member.name[:200]!r} twice; pack it once.")
        with member.open() as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                unpacked += len(chunk)
                _check_size(unpacked, packed, limits)
                file.write(chunk)


def _check_size(unpacked: int, packed: int, limits: ArchiveLimits) -> None:
    if unpacked > limits.unpacked:
        raise TrainingError(
            f"The archive unpacks to more than {limits.unpacked / 1e9:.1f} GB; pack fewer images, "
            "or raise MAX_DATASET_MB."
        )
    if unpacked > limits.ratio_from and unpacked > limits.ratio * packed:
        raise TrainingError(
            f"The archive unpacks to more than {limits.ratio:.0f} times its size, which no images "
            "do; pack them as compressed TIFF or PNG files."
        )


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a member's path, which leads nowhere but down.

    Raises:
        TrainingError
    """
    parts = tuple(part for part in PurePosixPath(name).parts if part != ".")
    is_odd = "\\" in name or "\0" in name or ":" in (parts[0] if parts else "")
    if name.startswith("/") or ".." in parts or is_odd or len(name) > _LONGEST_NAME:
        raise TrainingError(
            f"The archive names the place {name[:200]!r}, which is not inside of it; pack the "
            "folder again with relative names."
        )
    return parts


@contextmanager
def _members(archive: Path, limits: ArchiveLimits) -> Iterator[Iterator[_Member]]:
    with ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            _check_directory(archive)
            opened = stack.enter_context(zipfile.ZipFile(archive))
            yield _of_zip(opened)
            return
        plain = stack.enter_context(_without_compression(archive))
        bounded = _Bounded(plain, limits.unpacked + _LARGEST_HEADER)
        # the compression is undone above: tarfile would read as much at once as a header says
        tar = stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))  # type: ignore[call-overload]
        yield _of_tar(tar)


def _of_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        refused = None
        if info.flag_bits & 1:
            raise TrainingError("The archive has a password; pack the images without one.")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refused = "a link" if kind == stat.S_IFLNK else "a device"
        yield _Member(
            name=info.filename,
            open=None if info.is_dir() else partial(archive.open, info),
            refused=refused,
        )


def _of_tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        refused = None
        if info.issym() or info.islnk():
            refused = "a link"
        elif not info.isreg() and not info.isdir():
            refused = "a device"
        elif info.issparse():
            refused = "a file with holes"

        def read(info: tarfile.TarInfo = info) -> IO[bytes]:
            opened = archive.extractfile(info)
            if opened is None:
                raise EOFError("a file without content")
            return opened

        yield _Member(name=info.name, open=None if info.isdir() else read, refused=refused)


@contextmanager
def _without_compression(archive: Path) -> Iterator[IO[bytes]]:
    """Yield a tar archive's bytes with its compression undone."""
    with archive.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        for magic, opener in _COMPRESSIONS.items():
            if head.startswith(magic):
                with opener(file) as plain:
                    yield plain
                return
        yield file


class _Bounded:
    """A stream of which no more is read, at once or in all, than was agreed."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > _LARGEST_HEADER:
            raise TrainingError("The archive has a header of more than 64 MB; pack it again.")
        content = self._stream.read(count)
        self._check(self._stream.tell())
        return content

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._check(place)  # before: it would unpack everything up to there
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, place: int) -> None:
        if place > self._most:
            raise TrainingError(
                f"The archive unpacks to more than {self._most / 1e9:.1f} GB; pack fewer images, "
                "or raise MAX_DATASET_MB."
            )


def _check_directory(archive: Path) -> None:
    """Check that a zip's list of files fits into memory, which is where it is read to.

    Raises:
        TrainingError
    """
    size = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, size - _END_WITHIN))
        tail = file.read()
    at = tail.rfind(_DIRECTORY_ENDS)
    length = _number(tail[at + 12 : at + 16]) if at >= 0 else 0
    if at >= 76 and tail[at - 20 : at - 16] == _LOCATOR_64:
        length = _number(tail[at - 36 : at - 28])
    if length > _LARGEST_HEADER:
        raise TrainingError("The archive lists too many files; pack fewer.")


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")


def move_up(folder: Path) -> Path:
    """Return the folder that an archive of one folder holds, else the folder itself."""
    inside = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "__MACOSX"
    ]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
