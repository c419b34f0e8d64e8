"""Which part of an image is finished: where nothing is drawn, there is nothing.

Nobody outlines all of 300 cells. A shape with the label that `model_roi` names goes around what
is finished; outside of it neither losses nor scores count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ml_backend.domain import LabelImage
from ml_backend.errors import BadRequest
from ml_backend.geometry.patches import Patch
from ml_backend.labelstudio.reading import read_ellipse, read_polygon, read_rectangle
from ml_backend.training.annotated_image import Area

_READERS: tuple[tuple[str, Callable[[Mapping[str, Any], int, int], Patch]], ...] = (
    ("radiusX", read_ellipse),
    ("points", read_polygon),
    ("width", read_rectangle),
)
_NO_AREA = ("rle", "imageDataURL", "keypointlabels")  # a point has a width, too


def finished_area(
    regions: Iterable[Mapping[str, Any]], roi_label: str | None, height: int, width: int
) -> Area | None:
    """Return what is finished: the union of the shapes with the label; None = everything.

    Which control they belong to does not matter: the one for rectangles is often left to people
    (`model_skip`). Where nobody has drawn such a shape, the whole image is taken for finished.

    Raises:
        BadRequest: a shape with the label cannot be read, or it is a brush stroke.
    """
    if roi_label is None:
        return None
    area: Area | None = None
    for region in regions:
        value = region.get("value")
        if not isinstance(value, Mapping) or roi_label not in _labels_of(value):
            continue
        try:
            patch = _read(value, height, width)
        except BadRequest as error:
            raise BadRequest(f"A region labelled {roi_label!r} {error.message}.") from error
        if area is None:
            area = np.zeros((height, width), np.bool_)
        box_height, box_width = patch.mask.shape
        area[patch.y : patch.y + box_height, patch.x : patch.x + box_width] |= patch.mask
    return area


def keep_whole(labels: LabelImage, finished: Area | None) -> tuple[LabelImage, Area | None]:
    """Return the objects that lie in the finished area, and that area without those it cuts.

    An object that reaches beyond the border counts in neither: it is no object any more, and its
    pixels are no background.
    """
    if finished is None:
        return labels, None
    count = int(labels.max(initial=0))
    cut = np.bincount(labels[~finished], minlength=count + 1) > 0
    cut[0] = False
    kept = ~cut
    kept[0] = False
    numbers = np.zeros(count + 1, np.int32)
    numbers[kept] = np.arange(1, int(kept.sum()) + 1)
    return numbers[labels], finished & ~cut[labels]


def is_roi(region: Mapping[str, Any], roi_label: str | None) -> bool:
    """Return whether a region says what is finished and outlines no object."""
    value = region.get("value")
    return roi_label is not None and isinstance(value, Mapping) and roi_label in _labels_of(value)


def _read(value: Mapping[str, Any], height: int, width: int) -> Patch:
    if not any(key in value for key in _NO_AREA):
        for key, read in _READERS:
            if key in value:
                return read(value, height, width)
    raise BadRequest("is no rectangle; draw one around what is finished")


def _labels_of(value: Mapping[str, Any]) -> list[str]:
    return [
        label
        for key, labels in value.items()
        if key.endswith("labels") and isinstance(labels, list)
        for label in labels
        if isinstance(label, str)
    ]
