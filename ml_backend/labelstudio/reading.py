"""The `value` of result regions -> pixels, one function for each kind of shape.

Each takes a value as it came from a browser, which may be anything, and the size of the image
frame in pixels, and returns its mask, which may be empty. They raise `BadRequest` with half a
sentence that tells what is wrong; who knows the region's id says that first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ml_backend.errors import BadRequest
from ml_backend.geometry.filling import fill_polygon
from ml_backend.geometry.patches import Patch, crop_patch
from ml_backend.labelstudio.bitmask import decode_bitmask
from ml_backend.labelstudio.geometry import fill_ellipse, rectangle_corners
from ml_backend.labelstudio.rle import decode_rows

MAX_POLYGON_POINTS = 10_000
OPAQUE_FROM = 128  # of 255: brush strokes are antialiased

_FAR = 10_000.0  # percent; a coordinate beyond it is no slip of the mouse

Value = Mapping[str, Any]


def read_polygon(value: Value, height: int, width: int) -> Patch:
    """Return the pixels whose centres lie inside a polygon."""
    points = value.get("points")
    if not isinstance(points, list) or not 3 <= len(points) <= MAX_POLYGON_POINTS:
        raise BadRequest(f"needs a list of 3 to {MAX_POLYGON_POINTS} points")
    if not all(isinstance(point, list | tuple) and len(point) == 2 for point in points):
        raise BadRequest("has a point that is not two numbers")
    percent = [[_checked(x, "point"), _checked(y, "point")] for x, y in points]
    return fill_polygon(np.array(percent) * [width / 100, height / 100], height, width)


def read_rectangle(value: Value, height: int, width: int) -> Patch:
    """Return the pixels whose centres lie inside a rectangle, turned or not."""
    x, y, box_width, box_height = (_number(value, key) for key in ("x", "y", "width", "height"))
    corners = rectangle_corners(
        x * width / 100,
        y * height / 100,
        box_width * width / 100,
        box_height * height / 100,
        _number(value, "rotation", 0.0),
    )
    return fill_polygon(corners, height, width)


def read_ellipse(value: Value, height: int, width: int) -> Patch:
    """Return the pixels whose centres lie inside an ellipse, turned or not."""
    return fill_ellipse(
        _number(value, "x") * width / 100,
        _number(value, "y") * height / 100,
        _number(value, "radiusX") * width / 100,
        _number(value, "radiusY") * height / 100,
        _number(value, "rotation", 0.0),
        height,
        width,
    )


def read_keypoint(value: Value, height: int, width: int) -> Patch:
    """Return the one pixel that a key point lies on; a point knows no more of its instance."""
    x, y = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    column, row = min(math.floor(x), width - 1), min(math.floor(y), height - 1)
    if column < 0 or row < 0 or x > width or y > height:
        return Patch(y=0, x=0, mask=np.zeros((0, 0), dtype=np.bool_))
    return Patch(y=row, x=column, mask=np.ones((1, 1), dtype=np.bool_))


def read_brush(value: Value, height: int, width: int) -> Patch:
    """Return the pixels of a brush mask that are at least half opaque."""
    rle = value.get("rle")
    if not isinstance(rle, list | bytes):
        raise BadRequest("has no rle list")
    top, rows = decode_rows(rle, height, width)
    cropped = crop_patch(rows >= OPAQUE_FROM)
    return Patch(y=top + cropped.y, x=cropped.x, mask=cropped.mask)


def read_bitmask(value: Value, height: int, width: int) -> Patch:
    """Return the pixels of a bitmask that are at least half opaque."""
    url = value.get("imageDataURL")
    if not isinstance(url, str):
        raise BadRequest("has no imageDataURL")
    return crop_patch(decode_bitmask(url, height, width) >= OPAQUE_FROM)


def _number(value: Value, key: str, default: float | None = None) -> float:
    found = value.get(key, default)
    return _checked(default if found is None else found, key)


def _checked(number: Any, what: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BadRequest(f"has a {what} that is not a number")
    if not -_FAR <= number <= _FAR:  # false for NaN, too
        raise BadRequest(f"has a {what} far outside of the image")
    return float(number)
