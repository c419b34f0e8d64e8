"""Opens the images of a request: uploads, addresses, paths and arrays."""

from __future__ import annotations

import hashlib
import mmap
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
import numpy.typing as npt

from ml_backend.datasets import StoredDataset
from ml_backend.domain import FetchedFile, Fetcher, Image, LabelStudioAccess, SegmentationOptions
from ml_backend.errors import BadRequest, ImageDecodeError, ImageTooLarge, NotFound
from ml_backend.formats.numpy_file import MAGIC, read_npy, read_npy_base64
from ml_backend.imaging.arrays import image_of_array
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.inference_request import Place, SentArray, Source, Upload
from ml_backend.service.task_prediction import Decoder

MOST_LISTED: Final = 20_000_000  # numbers in nested lists; an NPY file takes a tenth of the text
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_SHOWN_CHARS: Final = 200
_CHANNELS: Final = 64  # of an array, as far as its size is concerned


@dataclass(frozen=True, kw_only=True)
class ImageSources:
    """Where images may come from."""

    fetcher: Fetcher
    access: LabelStudioAccess  # whose images need credentials
    decode: Decoder
    paths: AllowedPaths
    find_dataset: Callable[[str], StoredDataset | None]
    max_bytes: int  # of a file
    max_megapixels: int

    def folder_of(self, artifact: str | None) -> Path | None:
        """Return the folder that paths of a request are relative to, None = none.

        Raises:
            BadRequest: it must not be read, or there is no such folder.
            NotFound: there is no dataset of that name.
        """
        if artifact is None:
            return None
        if Path(artifact).is_absolute():
            return self._folder(artifact)
        dataset = self.find_dataset(artifact)
        if dataset is None:
            raise NotFound(
                f"There is no dataset {artifact[:_SHOWN_CHARS]!r}; give the name of a known one, "
                "or the absolute path of a folder."
            )
        if "://" in dataset.source.root:
            raise BadRequest(
                f"The dataset {dataset.name!r} is an archive at {dataset.source.root}; unpack it, "
                "and give the folder or upload its images."
            )
        return self._folder(dataset.source.root)

    def _folder(self, path: str) -> Path:
        folder = self.paths.find(path, what="folder")
        if not folder.is_dir():
            raise BadRequest(f"{path[:_SHOWN_CHARS]!r} is no folder; artifact names one.")
        return folder

    def check(self, source: Source, folder: Path | None) -> None:
        """Check as much of a source as can be known before anything is computed.

        Raises:
            BadRequest: its path must not be read.
            ImageDecodeError, ImageTooLarge
        """
        if isinstance(source, Place) and not is_address(source.text):
            self._path(source.text, folder)

    def open(self, source: Source, folder: Path | None, options: SegmentationOptions) -> Image:
        """Return an image.

        Raises:
            BadRequest: its path must not be read.
            ImageError: it cannot be fetched or decoded.
        """
        if isinstance(source, SentArray):
            return self._image(self._array(source), options)
        if isinstance(source, Upload):
            file = FetchedFile(path=source.path, sha256=source.sha256, size=source.size)
        elif is_address(source.text):
            file = self.fetcher.fetch(source.text, task_id=None, access=self.access)
        else:
            file = self._local(source.text, folder)
        with suppress(OSError), file.path.open("rb") as opened:  # decoding says what is wrong
            if opened.read(len(MAGIC)) == MAGIC:
                content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
                return self._image(read_npy(memoryview(content), max_values=self._most), options)
        return self.decode(file, plane=options.plane, channels=options.channels)

    def _local(self, text: str, folder: Path | None) -> FetchedFile:
        """Return a file that the caller names, as it is now."""
        path = self._path(text, folder)
        try:
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
                return FetchedFile(path=path, sha256=digest, size=opened.tell())
        except OSError as error:
            raise _unreadable(text, error) from error

    def _path(self, text: str, folder: Path | None) -> Path:
        """Return where a file lies that the caller names and may name."""
        shown = repr(text[:_SHOWN_CHARS])
        if not Path(text).is_absolute():
            if folder is None:
                raise BadRequest(
                    f"{shown} is neither an address nor an absolute path; write one of them, or "
                    "name the folder that it is relative to as artifact."
                )
            if ".." in PurePosixPath(text).parts:
                raise BadRequest(f"{shown} leads out of the folder that artifact names.")
            text = str(folder / text)
        path = self.paths.find(text, what="file")
        try:
            facts = path.stat()
        except OSError as error:
            raise _unreadable(text, error) from error
        if not stat.S_ISREG(facts.st_mode):
            raise ImageDecodeError(f"{shown} is no file; name an image file.")
        if facts.st_size > self.max_bytes:
            raise ImageTooLarge(
                f"The image file has {facts.st_size / 1e6:.0f} MB, more than MAX_IMAGE_MB "
                f"({self.max_bytes / 1e6:.0f}) allows."
            )
        return path

    def _image(self, array: npt.NDArray[Any], options: SegmentationOptions) -> Image:
        return image_of_array(
            array,
            plane=options.plane,
            channels=options.channels,
            max_megapixels=self.max_megapixels,
        )

    @property
    def _most(self) -> int:
        return self.max_megapixels * 1_000_000 * _CHANNELS

    def _array(self, source: SentArray) -> npt.NDArray[Any]:
        try:
            if bytes(memoryview(source.json)[:1]) == b'"':
                text = msgspec.json.decode(source.json, type=str)
                return read_npy_base64(text, max_values=self._most)
            return array_of_lists(source.json)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise ImageDecodeError(
                "The array is neither an NPY file in base64 nor nested lists of numbers."
            ) from None


def _unreadable(text: str, error: OSError) -> ImageDecodeError:
    return ImageDecodeError(f"{text[:_SHOWN_CHARS]!r} cannot be read ({error.strerror or error}).")


def is_address(text: str) -> bool:
    """Return whether a place is an address, not a path."""
    return _SCHEME.match(text.lstrip()) is not None


def name_of(source: Source, index: int) -> str:
    """Return what an image is called where the caller sees it, with its ending."""
    if isinstance(source, Upload):
        return source.name
    if isinstance(source, SentArray) or source.text.lstrip()[:5].lower() == "data:":
        return f"array-{index + 1}" if isinstance(source, SentArray) else f"image-{index + 1}"
    text = source.text
    if is_address(text):
        try:
            text = unquote(urlsplit(text.strip()).path)
        except ValueError:  # brackets that are no IPv6 address; fetching says so
            text = ""
    return PurePosixPath(text.replace("\\", "/")).name or f"image-{index + 1}"


def array_of_lists(json: msgspec.Raw) -> npt.NDArray[Any]:
    """Return nested lists of numbers as an array, read row by row.

    Raises:
        ImageDecodeError: they are none, or of different lengths.
        ImageTooLarge: there are more than `MOST_LISTED` numbers.
        msgspec.MsgspecError: they are no JSON.
    """
    count = bytes(memoryview(json)).count(b",") + 1
    if count > MOST_LISTED:
        raise ImageTooLarge(
            f"The nested lists have more than {MOST_LISTED} numbers; send the array as an NPY "
            "file in base64, or upload the image."
        )
    rows = []
    for row in msgspec.json.decode(json, type=list[msgspec.Raw]):
        try:
            array = np.asarray(msgspec.json.decode(row))
        except (ValueError, OverflowError) as error:  # rows of different lengths
            raise _ragged() from error
        if array.dtype.kind not in "iuf" or array.ndim == 0:
            raise ImageDecodeError(
                "The nested lists hold something else than numbers in rows; send rows of numbers."
            )
        rows.append(array)
    if not rows or any(row.shape != rows[0].shape for row in rows):
        raise _ragged()
    return np.stack(rows)


def _ragged() -> ImageDecodeError:
    return ImageDecodeError(
        "The nested lists have rows of different lengths, or none; send a full rectangle."
    )
