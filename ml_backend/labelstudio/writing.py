"""Instances -> the `value` of result regions, one function for each kind of shape.

Each takes a (Y, X) label image with instances 1..count and returns a list of count values, without
labels; None for an instance that has no such shape.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ml_backend.domain import LabelImage
from ml_backend.geometry.patches import Patch
from ml_backend.labelstudio.bitmask import encode_bitmask
from ml_backend.labelstudio.geometry import Shapes, measure_shapes, to_percent
from ml_backend.labelstudio.polygons import to_polygons
from ml_backend.labelstudio.rle import encode_label_image

Value = dict[str, Any]

_POINT_SIZE = 5.0  # pixels, of a key point as it is drawn


def write_polygons(labels: LabelImage, count: int) -> list[Value | None]:
    """Return polygons along the pixel edges."""
    height, width = labels.shape
    polygons = to_polygons(labels, count)
    sizes = [0 if points is None else len(points) for points in polygons]
    present = [points for points in polygons if points is not None]
    if not present:
        return [None] * count
    points = np.concatenate(present)  # rounding them all at once is ten times faster
    percent = np.stack([to_percent(points[:, 0], width), to_percent(points[:, 1], height)], axis=1)
    flat = percent.tolist()
    ends = np.cumsum(sizes).tolist()
    return [
        {"points": flat[end - size : end], "closed": True} if size else None
        for size, end in zip(sizes, ends, strict=True)
    ]


def write_brushes(labels: LabelImage, count: int) -> list[Value | None]:
    """Return brush masks in RLE."""
    filled = np.bincount(labels.ravel(), minlength=count + 1)[1:] > 0
    return [
        {"format": "rle", "rle": list(rle)} if there else None
        for rle, there in zip(encode_label_image(labels, count), filled.tolist(), strict=True)
    ]


def write_bitmasks(labels: LabelImage, count: int) -> list[Value | None]:
    """Return masks as PNG data URLs."""
    height, width = labels.shape
    values: list[Value | None] = []
    for index, box in enumerate(measure_shapes(labels, count).boxes):
        if np.isnan(box[0]):
            values.append(None)
            continue
        left, top, right, bottom = box.astype(np.intp).tolist()
        patch = Patch(y=top, x=left, mask=labels[top:bottom, left:right] == index + 1)
        values.append({"imageDataURL": encode_bitmask(patch, height, width)})
    return values


def write_rectangles(labels: LabelImage, count: int) -> list[Value | None]:
    """Return the boxes around the instances."""
    height, width = labels.shape
    boxes = measure_shapes(labels, count).boxes
    columns = (
        to_percent(boxes[:, 0], width),
        to_percent(boxes[:, 1], height),
        to_percent(boxes[:, 2] - boxes[:, 0], width),
        to_percent(boxes[:, 3] - boxes[:, 1], height),
    )
    return _rows(("x", "y", "width", "height"), columns, {"rotation": 0})


def write_ellipses(labels: LabelImage, count: int) -> list[Value | None]:
    """Return the ellipses with the instances' second moments."""
    height, width = labels.shape
    x, y, a, b, rotation = measure_shapes(labels, count).ellipses.T
    columns = (
        to_percent(x, width),
        to_percent(y, height),
        np.minimum(to_percent(a, width), 50),  # Label Studio's limit
        np.minimum(to_percent(b, height), 50),
        np.round(rotation, 2) % 360,
    )
    return _rows(("x", "y", "radiusX", "radiusY", "rotation"), columns, {})


def write_keypoints(labels: LabelImage, count: int) -> list[Value | None]:
    """Return a point on every instance, its centroid where that lies on it."""
    height, width = labels.shape
    shapes: Shapes = measure_shapes(labels, count)
    columns = (to_percent(shapes.centres[:, 0], width), to_percent(shapes.centres[:, 1], height))
    size = float(np.clip(round(100 * _POINT_SIZE / width, 3), 0.05, 5))
    return _rows(("x", "y"), columns, {"width": size})


def _rows(
    names: tuple[str, ...], columns: tuple[np.ndarray[Any, Any], ...], more: Value
) -> list[Value | None]:
    rows = np.stack(columns, axis=1).tolist()
    return [
        None if math.isnan(row[0]) else dict(zip(names, row, strict=True)) | more for row in rows
    ]
