"""Images for inference, in whatever form people have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.client.arrays import encode_npy_text
from ml_backend.client.call import Upload
from ml_backend.errors import BadRequest

MAX_BATCH = 8
"""Images in one request."""

MAX_BATCH_BYTES = 32_000_000
"""Of the images in one request, where it has more than one."""


@dataclass(frozen=True)
class ServerPath:
    """An image that lies on the server, under one of the folders that it may read."""

    path: str


Image = npt.NDArray[Any] | Path | str | ServerPath
"""An array (Y, X), (Y, X, C) or (C, Y, X); a file here; "http(s)://..."; a file on the server."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one kind that travel in one request."""

    images: tuple[Image, ...]

    @property
    def uploads(self) -> tuple[Upload, ...]:
        """Return the files that are sent."""
        return tuple(
            Upload(field="images", name=path.name, path=path)
            for path in map(_file, self.images)
            if path is not None
        )

    def body(self) -> dict[str, Any]:
        """Return what names the images in a request without files.

        Raises:
            BadRequest: an array is no image.
        """
        if isinstance(self.images[0], np.ndarray):
            return {"input_arrays": [encode_npy_text(_checked(image)) for image in self.images]}
        return {"image_paths": [_place(image) for image in self.images]}


def batches(images: Iterable[Image]) -> Iterator[Batch]:
    """Yield images in their order, in requests of one kind each that are not too large."""
    together: list[Image] = []
    kind, total = "", 0
    for image in images:
        its_kind, size = _kind(image), _bytes(image)
        is_full = len(together) == MAX_BATCH or total + size > MAX_BATCH_BYTES
        if together and (its_kind != kind or is_full):
            yield Batch(images=tuple(together))
            together, total = [], 0
        together.append(image)
        kind, total = its_kind, total + size
    if together:
        yield Batch(images=tuple(together))


def one_batch(images: Image | Iterable[Image]) -> Batch:
    """Return images as one request, whatever its size.

    Raises:
        BadRequest: there are none, or they are of different kinds.
    """
    found = tuple(listed(images))
    if len({_kind(image) for image in found}) != 1:
        raise BadRequest(
            "Give at least one image, and all of one kind: arrays, files here, or files elsewhere."
        )
    return Batch(images=found)


def listed(images: Image | Iterable[Image]) -> Iterable[Image]:
    """Return images as an iterable, one alone included; an array is one image, never many."""
    if isinstance(images, np.ndarray | Path | str | ServerPath):
        return (images,)
    return images


def _kind(image: Image) -> str:
    if isinstance(image, np.ndarray):
        return "array"
    if not isinstance(image, Path | str | ServerPath):
        raise BadRequest(
            f"A {type(image).__name__} is no image; give an array, a path, an address or a "
            "ServerPath."
        )
    return "place" if _file(image) is None else "file"


def _file(image: Image) -> Path | None:
    if isinstance(image, Path):
        return image.expanduser()
    if isinstance(image, str) and not _is_url(image):
        return Path(image).expanduser()
    return None


def _place(image: Image) -> str:
    return image.path if isinstance(image, ServerPath) else str(image)


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _bytes(image: Image) -> int:
    if isinstance(image, np.ndarray):
        return int(image.nbytes)
    path = _file(image)
    try:
        return 0 if path is None else path.stat().st_size
    except OSError as error:
        raise BadRequest(f"{path} cannot be read ({error.strerror}); check the path.") from None


def _checked(image: Image) -> npt.NDArray[Any]:
    array = np.asarray(image)
    if array.ndim not in (2, 3) or array.size == 0:
        raise BadRequest(
            f"An array of the shape {array.shape} is no image; give (Y, X), (Y, X, C) or (C, Y, X)."
        )
    return array
