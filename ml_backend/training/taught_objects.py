"""What an annotation teaches about an image: objects, and pixels that say neither yes nor no.

Rules, where several things could be meant:

- Regions with a label that predictions can have (or with none) are objects: where a control's
  labels are told apart all but `model_roi`, else the one that all objects get. A region with
  another label is often a cell of another kind: its pixels count neither as an object nor as
  background.
- Several controls of one image are fed with the same objects, so that people may keep one cell as
  an outline, a mask and a box. Of regions that mostly cover the same, the one that a person drew
  or changed counts, else the one that follows the border more closely, else the earlier control's.
- A rectangle or an ellipse teaches its own shape only where no control outlines more closely;
  elsewhere it says that there is a cell of unknown outline: neither object nor background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ml_backend.domain import Control, ControlTag, LabelImage
from ml_backend.imaging.matching import find_overlaps
from ml_backend.labelstudio.annotations import from_regions
from ml_backend.labelstudio.targets import Target
from ml_backend.training.annotated_image import Area
from ml_backend.training.finished_region import is_roi

SAME_OBJECT = 0.5  # IoU of two controls' regions from which on they are one object
_UNTOUCHED = "prediction"  # Label Studio's `origin` of a region that nobody changed
_COARSE = frozenset(
    {
        ControlTag.RECTANGLE,
        ControlTag.RECTANGLE_LABELS,
        ControlTag.ELLIPSE,
        ControlTag.ELLIPSE_LABELS,
    }
)


@dataclass(frozen=True, kw_only=True)
class TaughtObjects:
    """The objects of one annotation, by all controls of a target together."""

    labels: LabelImage  # 1..N, those that are learned
    unknown: Area  # neither object nor background
    outlined: int  # regions of any label that outline something, each object once
    untouched: bool  # there are objects, and each is a prediction's region that nobody changed
    notes: tuple[str, ...]  # a sentence each


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """The objects of one control; numbers are consecutive."""

    labels: LabelImage
    touched: tuple[bool, ...]  # (N,) by a person
    taught: tuple[bool, ...]  # (N,) learned as objects


def taught_objects(
    regions: Sequence[Mapping[str, Any]],
    target: Target,
    height: int,
    width: int,
    *,
    roi_label: str | None = None,
) -> TaughtObjects:
    """Return what the regions of an annotation teach the network of `target`.

    Raises:
        BadRequest: a region cannot be read; the text names it.
    """
    outlining = [region for region in regions if not is_roi(region, roi_label)]
    notes: list[str] = []
    joined: _Layer | None = None
    has_fine = any(control.tag not in _COARSE for control in target.teachers)
    for control in _finest_first(target.teachers):
        layer, said = _read(outlining, control, height, width)
        notes += said
        if has_fine and control.tag in _COARSE:
            layer = replace(layer, taught=(False,) * len(layer.taught))
        joined = layer if joined is None else _join(joined, layer)
    if joined is None:
        empty = np.zeros((height, width), np.int32)
        joined = _Layer(labels=empty, touched=(), taught=())
    numbers = np.zeros(len(joined.taught) + 1, np.int32)
    taught = np.array((False, *joined.taught))
    numbers[taught] = np.arange(1, int(taught.sum()) + 1)
    labels = numbers[joined.labels]
    return TaughtObjects(
        labels=labels,
        unknown=(joined.labels > 0) & (labels == 0),
        outlined=len(joined.taught),
        untouched=bool(joined.touched) and not any(joined.touched),
        notes=tuple(notes),
    )


def _finest_first(controls: Sequence[Control]) -> Iterator[Control]:
    yield from (control for control in controls if control.tag not in _COARSE)
    yield from (control for control in controls if control.tag in _COARSE)


def _read(
    regions: Sequence[Mapping[str, Any]], control: Control, height: int, width: int
) -> tuple[_Layer, tuple[str, ...]]:
    read = from_regions(regions, control, height, width)
    cells = {"", control.label, *control.classes}
    origins = {
        str(region.get("id", "")): region.get("origin")
        for region in regions
        if region.get("from_name") == control.name
    }
    return _Layer(
        labels=read.labels,
        touched=tuple(origins.get(one) != _UNTOUCHED for one in read.region_ids),
        taught=tuple(name in cells for name in read.label_names),
    ), read.notes


def _join(first: _Layer, second: _Layer) -> _Layer:
    """Return the objects of both, those that both have once."""
    if not second.taught:
        return first
    if not first.taught:
        return second
    overlaps = find_overlaps(first.labels, second.labels)
    drop_first, drop_second = set[int](), set[int]()
    for one, other, iou in zip(
        overlaps.truth_ids[overlaps.truth_index].tolist(),
        overlaps.predicted_ids[overlaps.predicted_index].tolist(),
        overlaps.iou.tolist(),
        strict=True,
    ):
        if iou < SAME_OBJECT:
            continue
        is_better = second.touched[other - 1] and not first.touched[one - 1]
        # a box around an outline is no better, whoever drew it
        is_better &= second.taught[other - 1] or not first.taught[one - 1]
        (drop_first if is_better else drop_second).add(one if is_better else other)
    kept = _without(first, drop_first)
    added = _without(second, drop_second)
    free = (kept.labels == 0) & (added.labels > 0)
    labels = kept.labels.copy()
    labels[free] = added.labels[free] + len(kept.taught)
    return _renumbered(
        _Layer(
            labels=labels,
            touched=kept.touched + added.touched,
            taught=kept.taught + added.taught,
        )
    )


def _without(layer: _Layer, numbers: set[int]) -> _Layer:
    if not numbers:
        return layer
    labels = np.where(np.isin(layer.labels, sorted(numbers)), 0, layer.labels)
    return _renumbered(replace(layer, labels=labels))


def _renumbered(layer: _Layer) -> _Layer:
    """Return the layer without objects that have no pixel left, numbers consecutive."""
    there = np.bincount(layer.labels.ravel(), minlength=len(layer.taught) + 1) > 0
    there[0] = False
    numbers = np.zeros(len(there), np.int32)
    numbers[there] = np.arange(1, int(there.sum()) + 1)
    kept = np.flatnonzero(there[1:]).tolist()
    return _Layer(
        labels=numbers[layer.labels],
        touched=tuple(layer.touched[index] for index in kept),
        taught=tuple(layer.taught[index] for index in kept),
    )
