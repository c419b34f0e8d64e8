"""The image that a package is tested with: one of the person's, or one that we draw ourselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import Pixels
from ml_backend.errors import BadRequest
from ml_backend.formats.numpy_file import read_npy
from ml_backend.imaging.samples import fluorescent_nuclei

MOST_VALUES: Final = 40_000_000
SMALLEST_EDGE: Final = 32  # pixels of an image that anything can be seen in
LARGEST_SHAPE: Final = (512, 1024)  # rows and columns; of a larger image a part is taken
MADE_SHAPE: Final = (256, 512)  # network pixels
MADE_DENSITY: Final = 1 / 2400  # nuclei per network pixel
SEED: Final = 5
_LOOKS: Final = 4  # places along each side where a part is looked at


@dataclass(frozen=True, kw_only=True)
class PackageSample:
    """An image, and where it is from."""

    pixels: Pixels  # (Y, X, C), C from 1 to 3
    about: str  # a sentence
    is_made: bool


def made_sample(*, scale: float, least: int) -> PackageSample:
    """Return drawn nuclei, of the size that the network knows.

    Args:
        scale: Network pixels per image pixel.
        least: Pixels that each side must have.
    """
    rows = max(MADE_SHAPE[0], int(np.ceil(least * scale)))
    shape = (rows, 2 * rows)
    picture, _ = fluorescent_nuclei(SEED, shape, count=int(shape[0] * shape[1] * MADE_DENSITY))
    if scale != 1.0:
        size = (round(shape[1] / scale), round(shape[0] / scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return PackageSample(
        pixels=picture[..., None],
        about="Fluorescent nuclei, drawn by the program that made this package; free for any use.",
        is_made=True,
    )


def given_sample(content: bytes) -> PackageSample:
    """Return the image in an NPY file: (Y, X), (Y, X, C) or (C, Y, X).

    Raises:
        ImageError: it is no array of numbers.
        BadRequest: it is no image.
    """
    return PackageSample(
        pixels=image_of(read_npy(content, max_values=MOST_VALUES)),
        about="An image that the authors of this package chose.",
        is_made=False,
    )


def image_of(array: npt.NDArray[Any]) -> Pixels:
    """Return an array as pixels (Y, X, C), the first three channels of it.

    Raises:
        BadRequest: it has no such shape, is tiny, or has values that are not finite.
    """
    if array.ndim == 2:
        pixels = array[..., None]
    elif array.ndim == 3 and array.shape[0] <= 4 and array.shape[0] < min(array.shape[1:]):
        pixels = np.moveaxis(array, 0, -1)
    else:
        pixels = array
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or min(pixels.shape[:2]) < SMALLEST_EDGE:
        raise BadRequest(
            f"The sample has the shape {array.shape}; it must be an image (Y, X), (Y, X, C) or "
            f"(C, Y, X) with at most 4 channels and {SMALLEST_EDGE} pixels a side."
        )
    if not np.isfinite(pixels).all():
        raise BadRequest("The sample has values that are not finite; replace them.")
    return np.ascontiguousarray(pixels[..., :3])


def fitted(pixels: Pixels, *, least: int, step: int, largest: tuple[int, int]) -> Pixels:
    """Return a part of an image whose sides are `least` plus a multiple of `step` pixels.

    The part with the most contrast is taken; an image that is too small is mirrored at its edges.

    Args:
        pixels: (Y, X, C).
        least: Pixels that each side has at least.
        step: Pixels; 0 = sides of `least` pixels.
        largest: Pixels that the sides have at most.
    """
    missing = [max(0, least - length) for length in pixels.shape[:2]]
    if any(missing):
        pixels = np.pad(pixels, [*((0, short) for short in missing), (0, 0)], mode="symmetric")
    sides = [
        least if step == 0 else least + (max(least, min(length, most)) - least) // step * step
        for length, most in zip(pixels.shape[:2], largest, strict=True)
    ]
    best: tuple[float, int, int] = (-1.0, 0, 0)
    for top in _places(pixels.shape[0] - sides[0]):
        for left in _places(pixels.shape[1] - sides[1]):
            part = pixels[top : top + sides[0], left : left + sides[1]]
            contrast = float(part[::2, ::2].astype(np.float32).std())
            best = max(best, (contrast, -top, -left))
    top, left = -best[1], -best[2]
    return np.ascontiguousarray(pixels[top : top + sides[0], left : left + sides[1]])


def resized(pixels: Pixels, factor: float) -> Pixels:
    """Return an image `factor` times as large, of the same data type."""
    size = [max(1, round(length * factor)) for length in pixels.shape[1::-1]]
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    larger = cv2.resize(pixels.astype(np.float32), size, interpolation=method)
    if larger.ndim == 2:
        larger = larger[..., None]
    if pixels.dtype.kind in "iu":
        larger = np.rint(larger)
    return np.asarray(larger.astype(pixels.dtype))


def _places(room: int) -> list[int]:
    return sorted({round(room * look / (_LOOKS - 1)) for look in range(_LOOKS)})
