"""TIFF, OME-TIFF, ImageJ TIFF, BigTIFF, SVS and LSM files, by tifffile and imagecodecs.

Only the pages that hold the chosen plane and channels are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.imaging import planes, tiff_colour
from ml_backend.imaging.pillow_reader import check_pixels, orient

_BYTES_PER_PIXEL_AT_MOST = 64  # of one page, all its samples: bounds memory, not the picture


def read_tiff(
    path: Path, *, plane: int | None, channels: tuple[int, ...] | None, max_pixels: int
) -> tuple[npt.NDArray[Any], list[str]]:
    """Return ((Y, X, C) of the file's own type, notes) of the chosen plane and channels.

    Args:
        path: the file.
        plane: 0 = first; None = first in time, middle of everything else.
        channels: 0 = first; None = the first three.
        max_pixels: the most pixels that may be decoded.

    Raises:
        ImageDecodeError: no such plane or channel, truncated, unknown colour space.
        ImageTooLarge: by the header, before anything is decoded.
        ValueError, OSError: and whatever else tifffile raises on broken bytes.
    """
    # Not multi-file: an OME-TIFF may name other files of this machine as parts of itself.
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        series = tiff.series[0]
        notes = []
        if len(tiff.series) > 1 and series.kind not in ("svs", "lsm"):
            notes.append(f"The first of the {len(tiff.series)} images in the file was used.")
        pixels, more = _read_series(
            series, path, plane=plane, channels=channels, max_pixels=max_pixels
        )
    return pixels, notes + more


def read_tiff_numbers(
    path: Path, *, plane: int | None, max_pixels: int
) -> tuple[npt.NDArray[Any], list[str]]:
    """Return ((Y, X) of the file's own type, notes) of a plane as it is stored, no colours made.

    For label images: a palette or a display range says nothing about the number of an object.

    Args:
        path: the file.
        plane: 0 = first; None = first in time, middle of everything else.
        max_pixels: the most pixels that may be decoded.

    Raises:
        ImageDecodeError: no such plane, several channels, truncated.
        ImageTooLarge: by the header, before anything is decoded.
        ValueError, OSError: and whatever else tifffile raises on broken bytes.
    """
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        series = tiff.series[0]
        axes, shape = _checked(series, max_pixels)
        channels = planes.channel_count(axes, shape)
        if channels != 1:
            raise ImageDecodeError(
                f"The TIFF file has {channels} channels, where the numbers of objects take one."
            )
        taken, notes = planes.choose_plane(axes, shape, plane)
        position = planes.position(axes, shape, plane=taken, channel=0)
        return np.array(_Pages(series, path).channel(position)), list(notes)


def _checked(series: tifffile.TiffPageSeries, max_pixels: int) -> tuple[str, tuple[int, ...]]:
    """Return the axes of a series and their lengths, which can be decoded.

    Raises:
        ImageDecodeError, ImageTooLarge
    """
    axes, shape = series.axes, tuple(series.shape)
    if "Y" not in axes or "X" not in axes or not prod(shape):
        raise ImageDecodeError("The TIFF file holds no two-dimensional image; save it as one.")
    check_pixels(shape[axes.index("Y")], shape[axes.index("X")], max_pixels)
    _check_memory(series.keyframe, max_pixels)
    return axes, shape


def _read_series(
    series: tifffile.TiffPageSeries,
    path: Path,
    *,
    plane: int | None,
    channels: tuple[int, ...] | None,
    max_pixels: int,
) -> tuple[npt.NDArray[Any], list[str]]:
    axes, shape = _checked(series, max_pixels)
    keyframe = series.keyframe
    colour = tiff_colour.plan_colour(keyframe, axes, shape, is_imagej=series.kind == "imagej")
    taken_plane, notes = planes.choose_plane(axes, shape, plane)
    samples = planes.channel_count(axes, shape) - colour.hidden_samples
    # Inks and palette numbers mean nothing one by one: all are read, channels are chosen after.
    read = tuple(range(samples))
    if not colour.whole:
        read, more = planes.choose_channels(samples, channels)
        notes += more
    pages = _Pages(series, path)
    positions = [
        planes.position(axes, shape, plane=taken_plane, channel=channel) for channel in read
    ]
    stack = np.stack([pages.channel(position) for position in positions], axis=-1)
    pixels = tiff_colour.to_shown(stack, colour, pages.page_at(positions[0]))
    if colour.whole:
        shown, more = planes.choose_channels(pixels.shape[2], channels)
        pixels, notes = pixels[..., list(shown)], notes + more
    if colour.hidden_samples:
        notes += ("The alpha channel was left out.",)
    tag = keyframe.tags.get("Orientation")
    turn = int(tag.value) if tag is not None and tag.value in range(2, 9) else 1
    if turn != 1:
        notes += ("The image was turned upright as its orientation tag says.",)
    return orient(pixels, turn), list(notes)


def _check_memory(keyframe: tifffile.TiffPage, max_pixels: int) -> None:
    limit = max_pixels * _BYTES_PER_PIXEL_AT_MOST
    tile = prod(keyframe.chunks) * keyframe.dtype.itemsize if keyframe.dtype else 0
    if keyframe.nbytes > limit or tile > limit:
        raise ImageTooLarge(
            f"One page of the TIFF file unpacks to {max(keyframe.nbytes, tile) / 1e9:.1f} GB; "
            "save its planes and channels as separate pages."
        )


class _Pages:
    """The pages of a series, each decoded at most once."""

    def __init__(self, series: tifffile.TiffPageSeries, path: Path) -> None:
        self._series = series
        self._path = path
        self._decoded: dict[int, npt.NDArray[Any]] = {}
        page_shape = tuple(series.keyframe.shape)
        lead = len(series.shape) - len(page_shape)
        self._paged = (
            lead >= 0
            and tuple(series.shape[lead:]) == page_shape
            and prod(series.shape[:lead]) == len(series.pages)
        )
        self._lead = lead if self._paged else 0

    def channel(self, position: dict[str, int]) -> npt.NDArray[Any]:
        """Return (Y, X) at a position on all other axes."""
        inside = self._series.axes[self._lead :]
        index = tuple(slice(None) if letter in "YX" else position[letter] for letter in inside)
        plane = self._page(self._number(position))[index]
        return plane if inside.index("Y") < inside.index("X") else plane.T

    def page_at(self, position: dict[str, int]) -> tifffile.TiffPage:
        """Return the page at a position with its own tags, such as its palette."""
        page = self._series.pages[self._number(position)]
        return self._series.keyframe if page is None else page.aspage()

    def _number(self, position: dict[str, int]) -> int:
        """Return the number of the page at a position."""
        number = 0
        axes, shape = self._series.axes, self._series.shape
        for letter, length in zip(axes[: self._lead], shape[: self._lead], strict=True):
            number = number * length + position[letter]
        return number

    def _page(self, number: int) -> npt.NDArray[Any]:
        if number not in self._decoded:
            self._decoded[number] = self._read(number)
        return self._decoded[number]

    def _read(self, number: int) -> npt.NDArray[Any]:
        if self._paged:
            page = self._series.pages[number]
            if page is None:
                raise ImageDecodeError(
                    f"Plane {number} is missing in the TIFF file; it may lie in another file."
                )
            self._check_complete([page])
            keyframe = self._series.keyframe
            if tiff_colour.needs_pillow(keyframe):
                return tiff_colour.read_page_with_pillow(self._path, page.index)
            return np.asarray(page.asarray()).reshape(keyframe.shape)
        return self._read_unpaged()

    def _read_unpaged(self) -> npt.NDArray[Any]:
        series = self._series
        offset = series.dataoffset
        if offset is None:
            pages = [page for page in series.pages if page is not None]
            self._check_complete(pages)
            return np.asarray(series.asarray()).reshape(series.shape)
        # One block of raw samples behind a single page (ImageJ): mapped, so that only the chosen
        # plane is read.
        dtype = series.dtype.newbyteorder(series.parent.byteorder)
        if offset + prod(series.shape) * dtype.itemsize > self._path.stat().st_size:
            raise _truncated()
        return np.memmap(self._path, dtype=dtype, mode="r", offset=offset, shape=series.shape)

    def _check_complete(self, pages: Sequence[Any]) -> None:
        """Raise when the file ends before its pixels do: tifffile fills some gaps in silence."""
        size = self._path.stat().st_size
        for page in pages:
            segments = zip(page.dataoffsets, page.databytecounts, strict=False)
            if any(offset + count > size for offset, count in segments):
                raise _truncated()


def _truncated() -> ImageDecodeError:
    return ImageDecodeError("The TIFF file is truncated: it ends before its pixels do.")
