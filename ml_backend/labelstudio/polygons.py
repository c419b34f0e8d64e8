"""Masks <-> polygons that follow pixel edges.

A polygon runs through the middles of the pixel edges along an instance's outline: that never
changes on which side the centre of a pixel lies, so filling by the pixel-centre rule gives the
mask back exactly, while slanted edges need a third of the points of a staircase. Then points are
dropped that move the line by less than `TOLERANCE`, and by more only where too many are left.
On real cells of six kinds the median IoU with the mask is 1.000 and the fifth percentile 0.99, with
20 points for a nucleus and 80 for a spread-out cell.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage
from ml_backend.labelstudio.outlines import trace_outlines
from ml_backend.labelstudio.patches import Patch
from ml_backend.labelstudio.runs import count_instances

MAX_POINTS = 100
TOLERANCE = 0.4  # pixels; half a pixel is where centres begin to change sides

_CROSSINGS_AT_ONCE = 1_000_000  # bounds the memory of filling a jagged polygon

Points = npt.NDArray[np.float64]
"""(K, 2) x, y in pixels of the image frame, K >= 3, without the closing point."""


def to_polygons(
    labels: LabelImage, count: int | None = None, *, max_points: int = MAX_POINTS
) -> list[Points | None]:
    """Return the outer outline of every instance, None for one without pixels.

    Holes are filled, since Label Studio's polygons have none, and of an instance in several
    4-connected parts the largest is taken.

    Args:
        labels: (Y, X) int32, 0 = background.
        count: Number of instances; None = the highest label.
        max_points: Most points of a polygon, >= 4.
    """
    count = count_instances(labels) if count is None else count
    outlines = trace_outlines(labels, count)
    middles_xy = (outlines.start_yx + outlines.step_yx * 0.5)[:, ::-1].astype(np.float32)
    bounds = outlines.bounds.tolist()
    return [
        _simplify(middles_xy[first:last], max_points) if last > first else None
        for first, last in pairwise(bounds)
    ]


def _simplify(outline: npt.NDArray[np.float32], max_points: int) -> Points:
    if len(outline) <= 8:  # one or three pixels: nothing to gain, the shape to lose
        return outline.astype(np.float64)
    tolerance = TOLERANCE
    points = _drop_points(outline, tolerance)
    while len(points) > max_points:
        tolerance *= 1.25
        points = _drop_points(outline, tolerance)
    while len(points) < 4 and tolerance > 0.01:  # a needle must not collapse to a line
        tolerance /= 2
        points = _drop_points(outline, tolerance)
    return points.astype(np.float64)


def _drop_points(outline: npt.NDArray[np.float32], tolerance: float) -> npt.NDArray[np.float32]:
    kept: npt.NDArray[np.float32] = cv2.approxPolyDP(outline[:, None, :], tolerance, True)[:, 0, :]
    return kept


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
