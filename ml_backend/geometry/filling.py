"""Polygons -> masks by the pixel-centre rule."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_backend.geometry.patches import Patch

_CROSSINGS_AT_ONCE = 1_000_000  # bounds the memory of filling a jagged polygon

Points = npt.NDArray[np.float64]
"""(K, 2) x, y in pixels of the image frame, K >= 3, without the closing point."""


def fill_polygon(points: Points, height: int, width: int) -> Patch:
    """Return the pixels of the frame whose centres lie inside a polygon.

    Where a polygon crosses itself the even-odd rule decides. A centre exactly on an edge belongs
    to the shape on its right or below, so that two polygons with a common edge share no pixel.
    """
    x, y = points[:, 0], points[:, 1]
    top, bottom = _pixel_range(y, height)
    left, right = _pixel_range(x, width)
    toggles = np.zeros((bottom - top, right - left + 1), dtype=np.uint8)
    if toggles.size == 0 or right == left:
        return Patch(y=top, x=left, mask=np.zeros((max(bottom - top, 0), 0), dtype=np.bool_))
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), top, bottom).astype(np.intp)
    last = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), top, bottom).astype(np.intp)
    crossings = np.cumsum(np.maximum(last - first, 0))
    begin = 0
    while begin < len(x):
        done = crossings[begin - 1] if begin else 0
        end = max(int(np.searchsorted(crossings, done + _CROSSINGS_AT_ONCE)), begin + 1)
        edges = np.arange(begin, min(end, len(x)))
        times = np.maximum(last[edges] - first[edges], 0)
        edge = np.repeat(edges, times)
        row = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times) + first[edge]
        along = (row + 0.5 - y[edge]) / (next_y[edge] - y[edge])
        column = np.ceil(x[edge] + along * (next_x[edge] - x[edge]) - 0.5)
        column = np.clip(column, left, right).astype(np.intp)
        np.bitwise_xor.at(toggles, (row - top, column - left), 1)
        begin = end
    mask = np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1].astype(np.bool_)
    return Patch(y=top, x=left, mask=mask)


def polygon_to_mask(points: Points, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return a polygon's pixels by the pixel-centre rule as a (Y, X) mask of the frame."""
    return fill_polygon(points, height, width).to_mask(height, width)


def _pixel_range(values: npt.NDArray[np.float64], size: int) -> tuple[int, int]:
    low = int(np.clip(np.floor(values.min()), 0, size))
    high = int(np.clip(np.ceil(values.max()), 0, size))
    return low, high
