"""Masks -> polygons that follow pixel edges, in few points; `geometry.filling` is the way back.

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
from ml_backend.geometry.filling import Points
from ml_backend.geometry.outlines import trace_outlines
from ml_backend.geometry.runs import count_instances

MAX_POINTS = 100
TOLERANCE = 0.4  # pixels; half a pixel is where centres begin to change sides


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
