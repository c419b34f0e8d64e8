"""The regions of an annotation -> a label image; the way back from `results`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_backend.domain import Control, ControlTag, LabelImage
from ml_backend.errors import BadRequest
from ml_backend.geometry.patches import Patch
from ml_backend.labelstudio.merging import PER_PIXEL, split_parts
from ml_backend.labelstudio.options import shown
from ml_backend.labelstudio.reading import (
    read_bitmask,
    read_brush,
    read_ellipse,
    read_keypoint,
    read_polygon,
    read_rectangle,
)
from ml_backend.labelstudio.rle_records import MAX_PIXELS

MAX_REGIONS = 100_000

_Reader = Callable[[Mapping[str, Any], int, int], Patch]

_READERS: Mapping[ControlTag, _Reader] = {
    ControlTag.POLYGON: read_polygon,
    ControlTag.POLYGON_LABELS: read_polygon,
    ControlTag.BRUSH: read_brush,
    ControlTag.BRUSH_LABELS: read_brush,
    ControlTag.BITMASK: read_bitmask,
    ControlTag.BITMASK_LABELS: read_bitmask,
    ControlTag.RECTANGLE: read_rectangle,
    ControlTag.RECTANGLE_LABELS: read_rectangle,
    ControlTag.ELLIPSE: read_ellipse,
    ControlTag.ELLIPSE_LABELS: read_ellipse,
    ControlTag.KEYPOINT: read_keypoint,
    ControlTag.KEYPOINT_LABELS: read_keypoint,
}


@dataclass(frozen=True, kw_only=True)
class ReadInstances:
    """What the regions of one control say about an image."""

    labels: LabelImage  # 1..N in the order of their regions
    label_names: tuple[str, ...]  # (N,) the label a person gave, "" for none
    region_ids: tuple[str, ...]  # (N,) merged masks give several instances one id
    notes: tuple[str, ...]  # a sentence for each region that covers no pixel


def from_regions(
    regions: Sequence[Any], control: Control, height: int, width: int
) -> ReadInstances:
    """Return the instances that the regions of one control outline.

    Where regions overlap the smaller one is on top. Key points give one pixel each. Other
    controls' regions are passed over. The view's rotation does not matter: Label Studio turns the
    picture, not the coordinates.

    Args:
        regions: The `result` of an annotation or prediction.
        control: Whose regions to read.
        height, width: Of the image frame in pixels.

    Raises:
        BadRequest: when a region cannot be read; the text names it.
    """
    if not 0 < height * width <= MAX_PIXELS or height < 0:
        raise BadRequest(f"An image cannot have {width} x {height} pixels.")
    if len(regions) > MAX_REGIONS:
        raise BadRequest(f"The annotation has more than {MAX_REGIONS} regions; split the task.")
    read = _READERS[control.tag]
    min_size = control.segmentation.min_size
    names = _separate_labels(regions, control)
    found: list[tuple[Patch, str, str]] = []
    notes: list[str] = []
    for region in _own(regions, control):
        region_id, value = _id(region), region.get("value")
        if not isinstance(value, Mapping):
            raise BadRequest(f"Region {shown(region_id)} has no value.")
        try:
            patch = read(value, height, width)
        except BadRequest as error:
            raise BadRequest(f"Region {shown(region_id)} {error.message}.") from error
        if not patch.mask.any():
            notes.append(f"Region {shown(region_id)} covers no pixel and is left out.")
            continue
        patches = split_parts(patch, min_size) if control.tag in PER_PIXEL else [patch]
        name = _label(value, control) or names.get(region_id, "")
        found += [(part, name, region_id) for part in patches]
    return _painted(found, tuple(notes), height, width)


def _own(regions: Iterable[Any], control: Control) -> Iterable[Mapping[str, Any]]:
    for region in regions:
        if isinstance(region, Mapping) and region.get("from_name") == control.name:
            yield region


def _separate_labels(regions: Iterable[Any], control: Control) -> dict[str, str]:
    """Return region id -> label as the Labels control of a bare tag has them."""
    if control.labels_name is None:
        return {}
    return {
        _id(region): _first_text(region.get("value"), "labels")
        for region in regions
        if isinstance(region, Mapping) and region.get("from_name") == control.labels_name
    }


def _label(value: Mapping[str, Any], control: Control) -> str:
    return _first_text(value, control.tag.value.lower())


def _first_text(value: Any, key: str) -> str:
    labels = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(labels, list) and labels and isinstance(labels[0], str):
        return labels[0]
    return ""


def _id(region: Mapping[str, Any]) -> str:
    region_id = region.get("id")
    return region_id if isinstance(region_id, str) else ""


def _painted(
    found: list[tuple[Patch, str, str]], notes: tuple[str, ...], height: int, width: int
) -> ReadInstances:
    canvas = np.zeros((height, width), dtype=np.int32)
    sizes = [int(patch.mask.sum()) for patch, _, _ in found]
    for index in sorted(range(len(found)), key=lambda index: -sizes[index]):
        found[index][0].paint(canvas, index + 1)
    there = np.bincount(canvas.ravel(), minlength=len(found) + 1) > 0
    there[0] = False
    renumbered = np.zeros(len(there), dtype=np.int32)
    renumbered[there] = np.arange(1, int(there.sum()) + 1)
    kept = [entry for entry, seen in zip(found, there[1:].tolist(), strict=True) if seen]
    hidden = [
        f"Region {shown(entry[2])} lies wholly under smaller ones and is left out."
        for entry, seen in zip(found, there[1:].tolist(), strict=True)
        if not seen
    ]
    return ReadInstances(
        labels=renumbered[canvas],
        label_names=tuple(name for _, name, _ in kept),
        region_ids=tuple(region_id for _, _, region_id in kept),
        notes=(*notes, *hidden),
    )
