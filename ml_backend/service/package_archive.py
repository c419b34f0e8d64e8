"""Archives of packages: written the same each time, read without trusting them."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from ml_backend.errors import CheckpointInvalid
from ml_backend.service.package_names import DESCRIPTION

LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive knows
MOST_ENTRIES: Final = 1000
MOST_BYTES: Final = 8_000_000_000  # of a file in it, unpacked; the largest networks have 1.2 GB
MOST_DESCRIPTION_BYTES: Final = 1_000_000
_PACKED: Final = frozenset({".pt", ".png", ".safetensors"})  # hardly shrink any more
_DESCRIPTIONS: Final = (DESCRIPTION, "rdf.yaml", "model.yaml")
_CHUNK: Final = 1 << 20


def write_archive(folder: Path, archive: Path) -> None:
    """Write the files of a folder as a zip archive; the same files give the same bytes."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    names.sort(key=lambda name: name != DESCRIPTION)  # first, so that people see it
    with zipfile.ZipFile(archive, "w") as packed:
        for name in names:
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            is_packed = Path(name).suffix in _PACKED
            entry.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
            entry.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as source, packed.open(entry, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK)


class PackageArchive:
    """The archive of a package, open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            CheckpointInvalid: it is no zip archive, or one that nobody should unpack.
        """
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise CheckpointInvalid(
                f"{path.name} is no zip archive that can be read ({error}); give a BioImage.IO "
                "package as it was downloaded."
            ) from None
        try:
            self._entries = self._listed()
        except CheckpointInvalid:
            self._zip.close()
            raise

    def __enter__(self) -> PackageArchive:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._zip.close()

    def description(self) -> Mapping[str, Any]:
        """Return the description of the resource in it.

        Raises:
            CheckpointInvalid: there is none, or it cannot be read.
        """
        name = next((name for name in _DESCRIPTIONS if name in self._entries), None)
        if name is None:
            raise CheckpointInvalid(
                f"The archive holds no {DESCRIPTION}; give a BioImage.IO package of a model."
            )
        content = self.read(name, most=MOST_DESCRIPTION_BYTES)
        try:
            described = yaml.safe_load(content)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
            raise CheckpointInvalid(f"The {name} in the archive is no readable YAML.") from None
        if not isinstance(described, dict):
            raise CheckpointInvalid(f"The {name} in the archive describes nothing.")
        return described

    def holds(self, name: str) -> bool:
        """Return whether a file of that name is in it."""
        return name in self._entries

    def read(self, name: str, *, most: int) -> bytes:
        """Return a small file of it.

        Raises:
            CheckpointInvalid: it is not there, larger than `most` bytes, or damaged.
        """
        content = bytearray()
        for piece in self._pieces(name, most):
            content += piece
        return bytes(content)

    def extract(self, name: str, target: Path, *, sha256: str | None) -> None:
        """Write a file of it to `target`.

        Raises:
            CheckpointInvalid: it is not there, too large, damaged, or has another hash.
            OSError: the disk is full or cannot be written.
        """
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for piece in self._pieces(name, MOST_BYTES):
                digest.update(piece)
                file.write(piece)
        if sha256 is not None and digest.hexdigest() != sha256.lower():
            raise CheckpointInvalid(
                f"The {name} in the archive has another checksum than its description says; it is "
                "damaged or was replaced."
            )

    def _pieces(self, name: str, most: int) -> Iterator[bytes]:
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointInvalid(f"The archive lacks {name[:200]!r}, which it speaks of.")
        too_large = CheckpointInvalid(f"The {name} in the archive is larger than {most} bytes.")
        if entry.file_size > most:
            raise too_large
        arrived = 0
        try:
            with self._zip.open(entry) as file:
                while piece := file.read(_CHUNK):
                    arrived += len(piece)
                    if arrived > most:  # the header lied
                        raise too_large
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise CheckpointInvalid(f"The {name} in the archive is damaged ({error}).") from None

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        """Return the files at the top of the archive by name; nothing below is ever needed."""
        entries = self._zip.infolist()
        if len(entries) > MOST_ENTRIES:
            raise CheckpointInvalid(f"The archive holds more than {MOST_ENTRIES} files.")
        found: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name, mode = entry.filename, entry.external_attr >> 16
            if entry.is_dir() or "/" in name or "\\" in name or name in (".", ".."):
                continue
            if name in found or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
                raise CheckpointInvalid(
                    f"The archive holds {name[:200]!r} twice, or as a link; it is not unpacked."
                )
            found[name] = entry
        return found
