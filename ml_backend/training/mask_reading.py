"""A file of masks becomes a label image: TIFF, PNG and NPY, Cellpose's `_seg.npy` among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import fastremap
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from ml_backend.domain import LabelImage
from ml_backend.errors import BackendError, ImageDecodeError, ImageTooLarge
from ml_backend.formats.numpy_file import MAGIC, read_npy
from ml_backend.imaging.decode import Kind, sniff
from ml_backend.imaging.pillow_reader import check_pixels
from ml_backend.imaging.tiff_reader import read_tiff_numbers
from ml_backend.training.cellpose_seg import read_seg
from ml_backend.training.object_npy import holds_objects

ONE_CHANNEL: Final = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # Pillow's modes
_MOST_BYTES: Final = 16  # of a pixel, and its header's
_LARGEST: Final = 2**53  # the largest float below which every whole number is there


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The objects that a file says there are in an image."""

    labels: LabelImage = field(repr=False)
    notes: tuple[str, ...] = ()  # a sentence each

    @property
    def objects(self) -> int:
        """Return how many there are."""
        return int(self.labels.max(initial=0))


def read_masks(path: Path, *, max_pixels: int) -> Masks:
    """Return the label image in a file, its objects numbered anew without gaps.

    What the file is, is read from its bytes. Of a stack the plane is taken that is taken of an
    image. Where there is one value besides 0, and it lies in several places, those are the objects.

    Raises:
        ImageDecodeError: it holds no label image.
        ImageTooLarge: it has too many pixels.
    """
    try:
        numbers, notes = _numbers(path, max_pixels)
    except BackendError:
        raise
    except MemoryError as error:
        raise ImageDecodeError("The file does not fit into memory.") from error
    except Exception as error:  # decoders raise anything at all when their bytes are broken
        reason = " ".join(str(error).split()).rstrip(".")[:120]
        said = reason or type(error).__name__
        raise ImageDecodeError(f"The file cannot be read ({said}).") from error
    labels, more = to_labels(numbers)
    return Masks(labels=labels, notes=(*notes, *more))


def to_labels(numbers: npt.NDArray[Any]) -> tuple[LabelImage, list[str]]:
    """Return the label image of an array of numbers, (Y, X), and what is to be said of it.

    Raises:
        ImageDecodeError: they are no numbers of objects.
    """
    if numbers.dtype == np.bool_:
        numbers = numbers.astype(np.uint8)
    if numbers.dtype.kind == "f":
        numbers = _whole(numbers)
    if numbers.dtype.kind not in "iu":
        raise ImageDecodeError(
            "The file holds no whole numbers, where 0 is background and each object has a number."
        )
    if numbers.dtype.kind == "i" and int(numbers.min(initial=0)) < 0:
        raise ImageDecodeError(
            "The file holds numbers below 0; 0 is background and each object has a number above it."
        )
    native = np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("="), copy=False))
    labels: LabelImage = fastremap.renumber(native, in_place=False)[0].astype(np.int32)
    if int(labels.max(initial=0)) != 1:
        return labels, []
    # 4-connected, as everywhere here: objects that touch at a corner stay apart
    count, parts = cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=4)
    if count <= 2:
        return labels, []
    note = f"The masks have one value for all objects; the {count - 1} places apart were numbered."
    return parts.astype(np.int32), [note]


def _numbers(path: Path, max_pixels: int) -> tuple[npt.NDArray[Any], list[str]]:
    with path.open("rb") as file:
        head = file.read(1024)
    if head.startswith(MAGIC):
        return _read_npy(path, max_pixels), []
    kind = sniff(head)
    if kind is Kind.TIFF:
        return read_tiff_numbers(path, plane=None, max_pixels=max_pixels)
    if kind is not Kind.PNG:
        raise ImageDecodeError(
            f"The file is {kind.name}, which masks are not read from; save them as a TIFF, PNG or "
            "NPY label image."
        )
    with PillowImage.open(path, formats=("PNG",)) as image:
        check_pixels(image.height, image.width, max_pixels)
        if image.mode not in ONE_CHANNEL:
            raise ImageDecodeError(
                f"The file is a colour picture ({image.mode}), where numbers of objects take one "
                "channel; save the masks as a label image."
            )
        image.load()
        return np.asarray(image), []


def _read_npy(path: Path, max_pixels: int) -> npt.NDArray[Any]:
    if holds_objects(path):
        return read_seg(path, max_pixels=max_pixels)
    size = path.stat().st_size
    if size > _MOST_BYTES * max_pixels:
        raise ImageTooLarge(f"The file has {size / 1e9:.1f} GB, too much for a label image.")
    array = read_npy(path.read_bytes(), max_values=max_pixels)
    shape = tuple(length for length in array.shape if length != 1)
    if len(shape) != 2:
        shown = " x ".join(map(str, array.shape))
        raise ImageDecodeError(
            f"The file holds an array of {shown}, where masks have rows and columns."
        )
    check_pixels(shape[0], shape[1], max_pixels)
    return array.reshape(shape)


def _whole(numbers: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return floats that are whole numbers as such: some programs save label images so.

    Raises:
        ImageDecodeError: they are not.
    """
    finite = np.isfinite(numbers)
    rounded = np.rint(numbers)
    if not finite.all() or (rounded != numbers).any() or (np.abs(numbers) > _LARGEST).any():
        raise ImageDecodeError(
            "The file holds fractions, where 0 is background and objects have whole numbers; save "
            "the masks as a label image of whole numbers."
        )
    whole: npt.NDArray[np.int64] = rounded.astype(np.int64)
    return whole
