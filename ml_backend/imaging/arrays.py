"""An array that a program sends becomes an image."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Image
from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.imaging.decode import to_finite
from ml_backend.imaging.planes import choose_channels, choose_plane

MOST_LEADING_CHANNELS = 4  # a first axis as short as this is channels where it is the shortest


def image_of_array(
    array: npt.NDArray[Any],
    *,
    plane: int | None = None,
    channels: tuple[int, ...] | None = None,
    max_megapixels: int,
) -> Image:
    """Return an array of numbers as an image.

    Args:
        array: (Y, X), (Y, X, C), or (C, Y, X) where C is at most 4 and the shortest axis.
        plane: an array has one, 0; None = that one.
        channels: which, 0 = first; None = the first three.
        max_megapixels: the largest image.

    Raises:
        ImageDecodeError: it has another shape, no such plane or channel, or no finite number.
        ImageTooLarge: it has too many pixels.
    """
    pixels = _rows_columns_channels(array)
    height, width, count = pixels.shape
    if height * width > max_megapixels * 1_000_000:
        raise ImageTooLarge(
            f"The array has {height} x {width} pixels, more than MAX_IMAGE_MEGAPIXELS "
            f"({max_megapixels}) allows; cut it into pieces."
        )
    choose_plane("YXS", pixels.shape, plane)
    taken, notes = choose_channels(count, channels)
    if taken != tuple(range(count)):
        pixels = pixels[..., list(taken)]
    finite, more = to_finite(_narrow(pixels))
    native = np.ascontiguousarray(finite.astype(finite.dtype.newbyteorder("="), copy=False))
    digest = hashlib.sha256(f"{native.dtype} {native.shape}".encode())
    digest.update(native.reshape(-1).view(np.uint8).data)
    return Image(pixels=native, sha256=digest.hexdigest(), notes=(*notes, *more))


def _rows_columns_channels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise ImageDecodeError("The array holds no plain numbers; send whole numbers or floats.")
    shape = array.shape
    if 0 in shape:
        raise ImageDecodeError(f"The array has the shape {shape} and so no pixels.")
    if len(shape) == 2:
        return array[..., None]
    if len(shape) == 3 and shape[0] <= MOST_LEADING_CHANNELS and shape[0] < min(shape[1:]):
        return np.moveaxis(array, 0, -1)
    # many channels are possible at the end, but where they outnumber rows the axes were mixed up
    if len(shape) == 3 and (shape[2] <= MOST_LEADING_CHANNELS or shape[2] <= min(shape[:2])):
        return array
    raise ImageDecodeError(
        f"The array has the shape {shape[:8]}, which is no image; send (rows, columns), (rows, "
        f"columns, channels), or (channels, rows, columns) with at most {MOST_LEADING_CHANNELS}."
    )


def _narrow(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return whole numbers of 64 bits, which Python's are, in the smallest type that holds them."""
    if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize < 8:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    for kind in (np.uint8, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return pixels.astype(kind)
    return pixels.astype(np.float64)
