"""PNG, JPEG, WebP, BMP, GIF, PNM, AVIF and MPO files as the browser shows them, by Pillow."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from ml_backend.errors import ImageTooLarge

# The cap on pixels is ours, read from the header of every file, per call: Pillow's is one number
# for the whole process, and it only warns up to twice that number.
PillowImage.MAX_IMAGE_PIXELS = None

_ORIENTATION = 0x0112
_ROWS_AT_ONCE = 512  # where rows pass through float32, so that a large image fits
_BROWSERS_ORIENT = ("JPEG", "MPO", "PNG", "WEBP", "AVIF")
_COLOUR_TYPES_WITH_SEVERAL_SAMPLES = (2, 4, 6)  # of PNG: RGB, gray + alpha, RGBA


def read_pillow(
    path: Path, formats: tuple[str, ...], *, max_pixels: int
) -> tuple[npt.NDArray[Any], list[str]]:
    """Return ((Y, X, C) in the image frame, notes) of a file that Pillow reads.

    Args:
        path: the file.
        formats: the formats that its first bytes allow, in Pillow's names.
        max_pixels: the most pixels that may be decoded.

    Raises:
        ImageTooLarge: by the header, before anything is decoded.
        OSError, ValueError, SyntaxError: and whatever else Pillow raises on broken bytes.
    """
    with PillowImage.open(path, formats=formats) as image:
        check_pixels(image.height, image.width, max_pixels)
        notes = []
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            notes.append("Only the first frame of the animation was used.")
        # Loaded first: the orientation of a PNG may come after its pixels.
        image.load()
        turn = _orientation(image) if image.format in _BROWSERS_ORIENT else 1
        if image.format == "PNG" and _is_deep_png(path):
            pixels = _over_white(_with_channels(imagecodecs.png_decode(path.read_bytes())))
        else:
            pixels = _to_array(image)
    return orient(pixels, turn), notes


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raise when an image has more pixels than may be decoded.

    Raises:
        ImageTooLarge: the sentence names the setting.
    """
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"The image has {width} x {height} pixels ({height * width / 1e6:.0f} megapixels), "
            f"more than MAX_IMAGE_MEGAPIXELS ({max_pixels / 1e6:.0f}) allows."
        )


def orient(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return (Y, X, C) turned upright by an EXIF or TIFF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _orientation(image: PillowImage.Image) -> int:
    # Not image.getexif(): that also believes XMP, which browsers ignore.
    raw = image.info.get("exif")
    if not isinstance(raw, bytes):
        return 1
    exif = PillowImage.Exif()
    try:
        exif.load(raw)
        value = exif.get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error, OSError):
        return 1  # a browser shows an image with broken EXIF as it lies
    return value if value in range(1, 9) else 1


def _is_deep_png(path: Path) -> bool:
    """Return whether Pillow would cut the samples of this PNG from 16 to 8 bits."""
    with path.open("rb") as file:
        header = file.read(26)
    depth, colour_type = header[24], header[25]
    return depth == 16 and colour_type in _COLOUR_TYPES_WITH_SEVERAL_SAMPLES


def _to_array(image: PillowImage.Image) -> npt.NDArray[Any]:
    if image.mode == "1":
        image = image.convert("L")
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode in ("LA", "RGBA"):
        return _over_white(np.asarray(image))
    if image.mode.startswith("I;16"):
        return _with_channels(np.asarray(image).astype(np.uint16))
    if image.mode == "I":
        values = np.asarray(image)
        fits = values.size and values.min() >= 0 and values.max() <= 0xFFFF
        return _with_channels(values.astype(np.uint16) if fits else values)
    if image.mode not in ("L", "RGB", "F"):
        image = image.convert("RGB")  # palette, CMYK, YCbCr, HSV
    return _with_channels(np.asarray(image))


def _with_channels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _over_white(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (Y, X, 1 or 3) from (Y, X, 2 or 4): transparent places show a white page."""
    if pixels.shape[2] not in (2, 4):
        return pixels
    white = np.iinfo(pixels.dtype).max
    if np.all(pixels[..., -1] == white):
        return pixels[..., :-1]
    shown = np.empty((*pixels.shape[:2], pixels.shape[2] - 1), pixels.dtype)
    for top in range(0, len(pixels), _ROWS_AT_ONCE):
        rows = np.s_[top : top + _ROWS_AT_ONCE]
        share = pixels[rows, :, -1:].astype(np.float32) / white
        shown[rows] = np.rint(pixels[rows, :, :-1] * share + white * (1 - share))
    return shown
