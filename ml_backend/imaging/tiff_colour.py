"""What the samples of a TIFF page mean, and how they become gray values or RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image as PillowImage

from ml_backend.errors import ImageDecodeError

_JPEG = (6, 7, 33007, 34892)  # compressions whose YCbCr tifffile turns into RGB itself
_ALPHA = (1, 2)  # of ExtraSamples: associated and unassociated


class Meaning(Enum):
    """How samples become what is shown."""

    AS_IS = auto()  # intensities, or red, green and blue
    INVERTED = auto()  # 0 is white
    PALETTE = auto()  # numbers of colours
    CMYK = auto()  # inks


@dataclass(frozen=True, kw_only=True)
class Colour:
    """What the samples of a page mean."""

    meaning: Meaning
    hidden_samples: int = 0  # alpha samples at the end

    @property
    def whole(self) -> bool:
        """Return whether all samples are needed to know one channel of the result."""
        return self.meaning in (Meaning.PALETTE, Meaning.CMYK)


def plan_colour(
    page: tifffile.TiffPage, axes: str, shape: Sequence[int], *, is_imagej: bool
) -> Colour:
    """Return what the samples of a page mean.

    Raises:
        ImageDecodeError: for colour spaces that cannot be shown.
    """
    samples = shape[axes.index("S")] if "S" in axes else 1
    extra = [int(value) for value in page.extrasamples]
    alpha = 1 if extra and extra[-1] in _ALPHA and samples > 1 else 0
    photometric = int(page.photometric)
    if page.dtype is None or np.dtype(page.dtype).kind not in "biuf":
        raise ImageDecodeError(
            "The TIFF file holds numbers that are no intensities, such as complex ones; "
            "save it as integers or floats."
        )
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE and page.dtype.kind in "bu":
        return Colour(meaning=Meaning.INVERTED, hidden_samples=alpha)
    # ImageJ writes its display table as a palette although the samples are intensities.
    if photometric == tifffile.PHOTOMETRIC.PALETTE and not is_imagej and samples == 1:
        if page.colormap is not None and "C" not in axes:
            return Colour(meaning=Meaning.PALETTE)
    elif photometric == tifffile.PHOTOMETRIC.SEPARATED and samples >= 4:
        return Colour(meaning=Meaning.CMYK)
    elif photometric in (
        tifffile.PHOTOMETRIC.CIELAB,
        tifffile.PHOTOMETRIC.ICCLAB,
        tifffile.PHOTOMETRIC.ITULAB,
    ):
        raise ImageDecodeError("The TIFF file is in the colour space Lab; save it as RGB.")
    return Colour(meaning=Meaning.AS_IS, hidden_samples=alpha)


def to_shown(pixels: npt.NDArray[Any], colour: Colour, page: tifffile.TiffPage) -> npt.NDArray[Any]:
    """Return (Y, X, C) intensities or RGB from (Y, X, C) samples."""
    if colour.meaning is Meaning.PALETTE:
        return _through_palette(pixels, page.colormap)
    if colour.meaning is Meaning.CMYK:
        return _from_inks(pixels)
    bits = page.bitspersample
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
        bits = 1
    if colour.meaning is Meaning.INVERTED:
        pixels = ((1 << bits) - 1 - pixels.astype(np.uint64)).astype(pixels.dtype)
    if pixels.dtype == np.uint8 and bits in (1, 2, 4):
        pixels = pixels * np.uint8(255 // ((1 << bits) - 1))  # as every viewer shows them
    return pixels


def _from_inks(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (Y, X, 3) RGB from (Y, X, 4 or more) cyan, magenta, yellow and black."""
    white = np.iinfo(pixels.dtype).max
    shown = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for ink in range(3):
        light = white - pixels[..., ink].astype(np.float32)
        shown[..., ink] = np.rint(light * (white - pixels[..., 3]) / white)
    return shown


def _through_palette(pixels: npt.NDArray[Any], palette: npt.NDArray[Any]) -> npt.NDArray[Any]:
    table = (np.asarray(palette) // 256).astype(np.uint8)  # (3, entries), 16 bits per colour
    numbers = np.minimum(pixels[..., 0].astype(np.intp), table.shape[1] - 1)
    shown = np.moveaxis(table[:, numbers], 0, -1)
    if np.array_equal(table[0], table[1]) and np.array_equal(table[0], table[2]):
        return shown[..., :1]
    return shown


def needs_pillow(page: tifffile.TiffPage) -> bool:
    """Return whether a page is YCbCr without JPEG, which tifffile leaves or refuses."""
    return (
        int(page.photometric) == tifffile.PHOTOMETRIC.YCBCR and int(page.compression) not in _JPEG
    )


def read_page_with_pillow(path: Path, number: int) -> npt.NDArray[np.uint8]:
    """Return (Y, X, 3) RGB of a page, by Pillow."""
    with PillowImage.open(path, formats=("TIFF",)) as image:
        image.seek(number)
        return np.asarray(image.convert("RGB"))
