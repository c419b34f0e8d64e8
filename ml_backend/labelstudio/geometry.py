"""Boxes, ellipses and centres of instances, and pixels <-> percent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage
from ml_backend.geometry.patches import Patch
from ml_backend.geometry.runs import find_runs

ROUNDED_TO = 0.02  # pixels that rounding a percent coordinate may at most move it by

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Simple shapes of N instances in pixels of the image frame; rows of empty ones are NaN."""

    areas: npt.NDArray[np.intp]  # (N,) pixels
    boxes: Numbers  # (N, 4) left, top, right, bottom: edges, so that right - left is the width
    centres: Numbers  # (N, 2) x, y of a point on the instance, the centroid where that is one
    ellipses: Numbers  # (N, 5) centre x, y, half axes a, b, rotation; see `_ellipses`


def measure_shapes(labels: LabelImage, count: int | None = None) -> Shapes:
    """Return box, centre and ellipse of each instance of a (Y, X) label image."""
    runs = find_runs(labels, count, within_rows=True)
    row, left = np.divmod(runs.start, labels.shape[1])
    right = left + runs.stop - runs.start
    owner, total = runs.label - 1, runs.count
    filled = np.diff(runs.bounds) > 0
    first = runs.bounds[:-1][filled]

    boxes = np.full((total, 4), np.nan)
    if len(first):
        boxes[filled, 0] = np.minimum.reduceat(left, first)
        boxes[filled, 1] = row[first]
        boxes[filled, 2] = np.maximum.reduceat(right, first)
        boxes[filled, 3] = np.maximum.reduceat(row, first) + 1

    # Moments about the box's corner, so that large coordinates do not eat the precision; a pixel
    # counts as a square, hence the integrals.
    def summed(values: Numbers) -> Numbers:
        return np.bincount(owner, weights=values, minlength=total).astype(np.float64)

    x0, x1 = left - boxes[owner, 0], right - boxes[owner, 0]
    y0 = row - boxes[owner, 1]
    length = x1 - x0
    areas = runs.areas
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x = summed((x1**2 - x0**2) / 2) / areas
        mean_y = summed(length * (y0 + 0.5)) / areas
        var_x = summed((x1**3 - x0**3) / 3) / areas - mean_x**2
        var_y = summed(length * (y0**2 + y0 + 1 / 3)) / areas - mean_y**2
        cov = summed((x1**2 - x0**2) / 2 * (y0 + 0.5)) / areas - mean_x * mean_y
    centroids = np.stack([mean_x + boxes[:, 0], mean_y + boxes[:, 1]], axis=1)
    return Shapes(
        areas=areas,
        boxes=boxes,
        centres=_on_instance(labels, centroids, np.stack([left, right, row], axis=1), runs.bounds),
        ellipses=np.concatenate([centroids, _ellipses(var_x, var_y, cov)], axis=1),
    )


def _ellipses(var_x: Numbers, var_y: Numbers, cov: Numbers) -> Numbers:
    """Return (N, 3) half axis a, half axis b, rotation of the ellipses with these moments.

    Axis a is the one closer to the horizontal, turned clockwise (y points down) by the rotation
    of 0..45 or 315..360 degrees: so a stays a share of the width and b one of the height, which
    Label Studio limits to 50 % each.
    """
    middle = (var_x + var_y) / 2
    spread = np.hypot((var_x - var_y) / 2, cov)
    flip = np.where(var_x >= var_y, 1.0, -1.0)
    a = 2 * np.sqrt(np.maximum(middle + flip * spread, 0))
    b = 2 * np.sqrt(np.maximum(middle - flip * spread, 0))
    angle = np.degrees(np.arctan2(2 * cov * flip, np.abs(var_x - var_y))) / 2
    return np.stack([a, b, angle % 360], axis=1)


def _on_instance(
    labels: LabelImage,
    centroids: Numbers,
    spans: npt.NDArray[np.intp],
    bounds: npt.NDArray[np.intp],
) -> Numbers:
    """Return the centroids, moved to the nearest own pixel where they miss the instance."""
    centres = centroids.copy()
    filled = np.flatnonzero(np.diff(bounds) > 0)
    x, y = np.floor(centroids[filled]).astype(np.intp).T
    for index in filled[labels[y, x] != filled + 1].tolist():
        left, right, row = spans[bounds[index] : bounds[index + 1]].T
        near_x = np.clip(centroids[index, 0], left + 0.5, right - 0.5)
        distance = (near_x - centroids[index, 0]) ** 2 + (row + 0.5 - centroids[index, 1]) ** 2
        best = int(distance.argmin())
        centres[index] = near_x[best], row[best] + 0.5
    return centres


def percent_decimals(size: int) -> int:
    """Return how many decimals a percent coordinate needs on an axis of `size` pixels."""
    return max(0, math.ceil(math.log10(size / (100 * 2 * ROUNDED_TO))))


def to_percent(pixels: Numbers, size: int) -> Numbers:
    """Return pixel coordinates or lengths on an axis of `size` pixels as rounded percent."""
    percent: Numbers = np.round(pixels * (100 / size), percent_decimals(size))
    return percent


def from_percent(percent: Numbers, size: int) -> Numbers:
    """Return percent coordinates or lengths on an axis of `size` pixels as pixels."""
    return percent * (size / 100)


def fill_ellipse(
    x: float, y: float, a: float, b: float, rotation: float, height: int, width: int
) -> Patch:
    """Return the pixels of the frame whose centres lie inside an ellipse.

    Args:
        x, y: Centre in pixels.
        a, b: Half axes in pixels; a lies horizontally before the rotation.
        rotation: Clockwise, degrees.
        height, width: Of the frame in pixels.
    """
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    reach_x, reach_y = math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)
    left, right = _clipped(x - reach_x, width), _clipped(x + reach_x + 1, width)
    top, bottom = _clipped(y - reach_y, height), _clipped(y + reach_y + 1, height)
    if a <= 0 or b <= 0:
        return Patch(y=top, x=left, mask=np.zeros((0, 0), dtype=np.bool_))
    dx = np.arange(left, right) + 0.5 - x
    dy = (np.arange(top, bottom) + 0.5 - y)[:, None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    return Patch(y=top, x=left, mask=(along / a) ** 2 + (across / b) ** 2 <= 1)


def rectangle_corners(
    x: float, y: float, box_width: float, box_height: float, rotation: float
) -> Numbers:
    """Return the (4, 2) corners of a rectangle turned clockwise about its top left corner."""
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    along = np.array([0, box_width, box_width, 0.0])
    down = np.array([0, 0, box_height, box_height])
    return np.stack([x + along * cos - down * sin, y + along * sin + down * cos], axis=1)


def _clipped(value: float, size: int) -> int:
    return int(min(max(math.floor(value), 0), size))
