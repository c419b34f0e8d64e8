"""A file becomes an array: what it is, is read from its bytes, never from its name."""

from __future__ import annotations

import hashlib
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.domain import FetchedFile, Image
from ml_backend.errors import ImageDecodeError, ImageError
from ml_backend.imaging.pillow_reader import read_pillow
from ml_backend.imaging.planes import choose_channels, choose_plane
from ml_backend.imaging.tiff_reader import read_tiff

_SNIFFED_BYTES = 1024
_READABLE = "PNG, JPEG, WebP, GIF, BMP, PNM and TIFF"


class Kind(Enum):
    """What a file is, by its first bytes; the value is how Pillow calls it."""

    PNG = ("PNG",)
    JPEG = ("JPEG", "MPO")
    WEBP = ("WEBP",)
    GIF = ("GIF",)
    BMP = ("BMP",)
    PNM = ("PPM",)
    AVIF = ("AVIF",)
    TIFF = ()


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (b"\xff\xd8\xff", Kind.JPEG),
    (b"GIF87a", Kind.GIF),
    (b"GIF89a", Kind.GIF),
    (b"BM", Kind.BMP),
    (b"II*\0", Kind.TIFF),
    (b"MM\0*", Kind.TIFF),
    (b"II+\0", Kind.TIFF),
    (b"MM\0+", Kind.TIFF),
    *((b"P%d" % number, Kind.PNM) for number in range(1, 7)),
    (b"Pf", Kind.PNM),
)


def decode_image(
    file: FetchedFile | Path,
    *,
    plane: int | None = None,
    channels: tuple[int, ...] | None = None,
    max_megapixels: int,
) -> Image:
    """Return the image in the frame that the browser shows, with the detector's own values.

    PNG, JPEG, WebP, BMP, GIF, AVIF and PNM come as the browser shows them: turned by EXIF, over a
    white page where they are transparent, CMYK and palettes as RGB, 16 bits kept. TIFF and its
    dialects keep their data type; alpha is left out, floats become float32 with NaN and infinity
    replaced by the nearest finite values.

    Args:
        file: the file, from the cache or any other.
        plane: which plane of a stack, 0 = first; None = first in time, middle of everything else.
        channels: which channels, 0 = first; None = the first three.
        max_megapixels: the largest image that is decoded, by its header.

    Returns:
        The image; its notes say what was chosen or changed.

    Raises:
        ImageDecodeError: when the bytes are no readable image.
        ImageTooLarge: when it has too many pixels.
    """
    path = file.path if isinstance(file, FetchedFile) else file
    try:
        with path.open("rb") as opened:
            head = opened.read(_SNIFFED_BYTES)
        sha256 = file.sha256 if isinstance(file, FetchedFile) else _sha256(path)
    except OSError as error:
        raise ImageDecodeError(
            f"The file left the image cache before it was read ({error.strerror}); try again."
        ) from error
    kind = sniff(head)
    pixels, notes = _read(
        path, kind, plane=plane, channels=channels, max_pixels=max_megapixels * 1_000_000
    )
    pixels, more = to_finite(pixels)
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return Image(pixels=np.ascontiguousarray(native), sha256=sha256, notes=(*notes, *more))


def sniff(head: bytes) -> Kind:
    """Return what a file is, from its first bytes.

    Raises:
        ImageDecodeError: with a sentence about what it is instead.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.WEBP
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return Kind.AVIF
    raise ImageDecodeError(_what_it_is_instead(head))


def _what_it_is_instead(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "The file is empty; upload the image again."
    if text.startswith((b"<!doctype html", b"<html")):
        return "The file is a web page, not an image; check its address in the task."
    if b"<svg" in text:
        return "The image is an SVG drawing, which has no pixels; export it as PNG."
    if text.startswith((b"{", b"[")):
        return "The file is JSON text, not an image; check its address in the task."
    if text.startswith(b"%pdf"):
        return "The file is a PDF document; export its pages as PNG."
    if head[:4] == b"PK\x03\x04":
        return "The file is a ZIP archive; unpack it and import the images in it."
    if head.startswith(b"\x89HDF"):
        return "The file is HDF5; export its images as PNG or TIFF."
    return f"The file is none of the image formats that can be read ({_READABLE})."


def _read(
    path: Path,
    kind: Kind,
    *,
    plane: int | None,
    channels: tuple[int, ...] | None,
    max_pixels: int,
) -> tuple[npt.NDArray[Any], list[str]]:
    try:
        if kind is Kind.TIFF:
            return read_tiff(path, plane=plane, channels=channels, max_pixels=max_pixels)
        pixels, notes = read_pillow(path, kind.value, max_pixels=max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageDecodeError(
            "The image does not fit into memory; lower MAX_IMAGE_MEGAPIXELS or add memory."
        ) from error
    except Exception as error:  # decoders raise anything at all when their bytes are broken
        raise ImageDecodeError(_broken(kind, error)) from error
    choose_plane("YXS", pixels.shape, plane)
    taken, more = choose_channels(pixels.shape[2], channels)
    if taken != tuple(range(pixels.shape[2])):
        pixels = pixels[..., list(taken)]
    return pixels, [*notes, *more]


def _broken(kind: Kind, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    if "truncated" in reason.lower():
        return f"The {kind.name} file is truncated: it ends before its pixels do."
    if "cannot identify" in reason:  # the rest of Pillow's message is a path of this machine
        reason = "its header is broken"
    return f"The {kind.name} file is damaged or of an unknown kind ({reason[:120]})."


def to_finite(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
    """Return (pixels, notes): floats as finite float32, truth as 0 and 255, the rest as it is.

    Raises:
        ImageDecodeError: no pixel is finite.
    """
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255), []
    if pixels.dtype.kind != "f":
        return pixels, []
    limit = np.finfo(np.float32).max
    finite = np.isfinite(pixels)
    if finite.all():
        return np.clip(pixels, -limit, limit).astype(np.float32), []
    if not finite.any():
        raise ImageDecodeError("The image has no finite pixel value; export it again.")
    low, high = (float(value) for value in (pixels[finite].min(), pixels[finite].max()))
    clean = np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)
    count = int(finite.size - finite.sum())
    return np.clip(clean, -limit, limit).astype(np.float32), [
        f"{count} pixel values were not finite and were replaced."
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
