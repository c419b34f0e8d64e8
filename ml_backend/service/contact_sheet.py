"""A contact sheet: the images of one cluster side by side, for a person to name what they are."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ml_backend.service.lettering import font, shortened
from ml_backend.service.overlay import display_image

MARGIN, GAP = 24, 12  # pixels around the sheet, between its cells
TOP = 64  # title
FOOTER = 48
LINE = 18  # height of a line of a caption
HAIRLINE = 1  # around a crop
CAPTION_LINES = 2  # at most
LEAST_WIDTH = 480  # pixels, room for a title
_LONGEST_BAR = 0.9  # of a cell

INK, FAINT, FRAME, GROUND = (40, 40, 40), (110, 110, 110), (206, 206, 206), (244, 244, 244)


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Where everything stands, in pixels."""

    columns: int
    cell: int
    rows: int
    lines: int  # of a caption

    @property
    def width(self) -> int:
        own = 2 * MARGIN + self.columns * self.cell + (self.columns - 1) * GAP
        return max(LEAST_WIDTH, own)

    @property
    def row_height(self) -> int:
        return self.cell + self.lines * LINE + GAP + (6 if self.lines else 0)

    @property
    def height(self) -> int:
        return TOP + self.rows * self.row_height + FOOTER

    def corner(self, index: int) -> tuple[int, int]:
        """Return the left and top edge of a cell."""
        row, column = divmod(index, self.columns)
        return MARGIN + column * (self.cell + GAP), TOP + row * self.row_height


def contact_sheet(
    thumbnails: Sequence[npt.NDArray[Any]],
    captions: Sequence[str],
    *,
    title: str,
    total: int | None = None,
    columns: int = 8,
    cell: int = 134,
    common_scale: bool = False,
) -> bytes:
    """Return a PNG with one cell per image, in the order given, and how many there are in all.

    Crops keep their proportions. Without images the sheet says so.

    Args:
        thumbnails: each (Y, X), (Y, X, 1) or (Y, X, 3) uint8, shown as it is; anything else
            (Y, X, C) is stretched for the eye. The most typical one (nearest to the cluster's
            centre) comes first.
        captions: one per thumbnail, e.g. task number and choice; a line break starts the second
            of at most two lines.
        title: the line above.
        total: images in the cluster; None = those shown.
        columns: cells side by side; fewer where there are fewer images.
        cell: edge of a cell in pixels.
        common_scale: all crops are scaled alike, with a bar that says how much, so that absolute
            size can be seen; otherwise each fills its cell.

    Raises:
        ValueError: there are not as many captions as thumbnails.
    """
    if len(thumbnails) != len(captions):
        raise ValueError(f"{len(thumbnails)} thumbnails have {len(captions)} captions.")
    images = [_shown(thumbnail) for thumbnail in thumbnails]
    written = [_lines(caption) for caption in captions]
    across = max(1, min(columns, len(images)))
    grid = _Grid(
        columns=across,
        cell=cell,
        rows=max(1, math.ceil(len(images) / across)),
        lines=max((len(lines) for lines in written), default=0),
    )
    sheet = Image.new("RGB", (grid.width, grid.height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 20), shortened(title, grid.width - 2 * MARGIN, 20), INK, font=font(20))
    scale = _common_scale(images, cell) if common_scale and images else None
    for index, (image, lines) in enumerate(zip(images, written, strict=True)):
        left, top = grid.corner(index)
        _paste(sheet, image, left, top, cell, scale)
        for number, line in enumerate(lines):
            place = (left, top + cell + 6 + number * LINE)
            colour = INK if number == 0 else FAINT
            draw.text(place, shortened(line, cell, 14, middle=True), colour, font=font(14))
    if not images:
        middle = (grid.width / 2, TOP + grid.row_height / 2)
        words = "There are no images in this cluster."
        draw.text(middle, words, FAINT, font=font(17), anchor="mm")
    _write_footer(draw, grid, shown=len(images), total=total, scale=scale)
    content = io.BytesIO()
    sheet.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _shown(pixels: npt.NDArray[Any]) -> Image.Image:
    """Return a thumbnail as a picture in gray or colour."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if 0 in pixels.shape:  # a picture of nothing rather than no sheet
        return Image.new("L", (1, 1), 255)
    if pixels.dtype == np.uint8 and pixels.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    return Image.fromarray(display_image(pixels))


def _lines(caption: str) -> list[str]:
    lines = [line for line in caption.splitlines() if line.strip()]
    return lines[:CAPTION_LINES]


def _common_scale(images: Sequence[Image.Image], cell: int) -> float:
    return (cell - 2 * HAIRLINE) / max(max(image.size) for image in images)


def _paste(
    sheet: Image.Image, image: Image.Image, left: int, top: int, cell: int, scale: float | None
) -> None:
    """Put an image into the middle of its cell, in proportion, with a hairline around it."""
    room = cell - 2 * HAIRLINE
    factor = room / max(image.size) if scale is None else scale
    width, height = (max(1, min(room, round(edge * factor))) for edge in image.size)
    scaled = image.resize((width, height), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=GROUND)
    x, y = left + (cell - width) // 2, top + (cell - height) // 2
    sheet.paste(scaled, (x, y))
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FRAME)


def _write_footer(
    draw: ImageDraw.ImageDraw, grid: _Grid, *, shown: int, total: int | None, scale: float | None
) -> None:
    bottom = grid.height - 18
    words = f"showing {shown} of {shown if total is None else max(shown, total)}"
    draw.text((MARGIN, bottom), words, FAINT, font=font(14), anchor="ls")
    if scale is None:
        return
    length = _round_length(grid.cell * _LONGEST_BAR / scale)
    right, long = grid.width - MARGIN, length * scale
    draw.line([(right - long, bottom - 5), (right, bottom - 5)], INK, width=3)
    draw.text((right - long - 8, bottom), f"{length:g} px", INK, font=font(14), anchor="rs")


def _round_length(longest: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that is not above `longest` pixels of a crop."""
    power = 10.0 ** math.floor(math.log10(longest))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest * 1.000001)
