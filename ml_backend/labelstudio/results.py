"""Instances and classes -> the regions of a Label Studio result."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ml_backend.domain import (
    ChoicesControl,
    Classification,
    Control,
    ControlTag,
    LabelConfig,
    LabelImage,
    Segmentation,
)
from ml_backend.labelstudio.merging import PER_PIXEL, merge_instances
from ml_backend.labelstudio.options import DEFAULT_MAX_REGIONS
from ml_backend.labelstudio.writing import (
    Value,
    write_bitmasks,
    write_brushes,
    write_ellipses,
    write_keypoints,
    write_polygons,
    write_rectangles,
)

Region = dict[str, Any]

_Writer = Callable[[LabelImage, int], list[Value | None]]

_WRITERS: Mapping[ControlTag, _Writer] = {
    ControlTag.POLYGON: write_polygons,
    ControlTag.POLYGON_LABELS: write_polygons,
    ControlTag.BRUSH: write_brushes,
    ControlTag.BRUSH_LABELS: write_brushes,
    ControlTag.BITMASK: write_bitmasks,
    ControlTag.BITMASK_LABELS: write_bitmasks,
    ControlTag.RECTANGLE: write_rectangles,
    ControlTag.RECTANGLE_LABELS: write_rectangles,
    ControlTag.ELLIPSE: write_ellipses,
    ControlTag.ELLIPSE_LABELS: write_ellipses,
    ControlTag.KEYPOINT: write_keypoints,
    ControlTag.KEYPOINT_LABELS: write_keypoints,
}

# Each region of a PER_PIXEL tag costs the browser a layer of about 33 MB.
_POLYGONS = frozenset({ControlTag.POLYGON, ControlTag.POLYGON_LABELS})


class BuiltResult(NamedTuple):
    """A result as Label Studio takes it."""

    regions: list[Region]
    # 0..1, None when nothing was found: the mean over all instances shown, and of that and each
    # control's classification the mean
    score: float | None
    notes: tuple[str, ...]  # a sentence each; they also stand in the first region's meta


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """The instances that a control shows."""

    labels: LabelImage  # 1..N, consecutive
    scores: npt.NDArray[np.float64]  # (N,) in 0..1
    names: tuple[str, ...]  # (N,) the label of each
    # by control of choices for single objects: (N,) its answers
    answers: Mapping[ChoicesControl, Sequence[Classification]]

    @property
    def count(self) -> int:
        return len(self.scores)


def build_result(
    segmentations: Mapping[str, Segmentation],
    config: LabelConfig,
    *,
    classifications: Mapping[str, Classification] | None = None,
    of_objects: Mapping[str, Sequence[Classification]] | None = None,
    notes: Sequence[str] = (),
) -> BuiltResult:
    """Return the regions of one task.

    Above a control's `max_regions` brush and bitmask masks are merged into one region, unless a
    polygon control of the same image carries the instances.

    Args:
        segmentations: Control name -> its instances; controls that are not in it get nothing.
        config: The label config.
        classifications: `Choices` control name -> its answer; one that abstains says nothing.
        of_objects: control name -> its answer for each instance of the control that it is about.
        notes: Sentences about the image, for the person who sees the result.
    """
    regions: list[Region] = []
    scores: list[npt.NDArray[np.float64]] = []
    said = list(notes)
    for control in config.controls:
        segmentation = segmentations.get(control.name)
        if segmentation is None:
            continue
        said += segmentation.notes
        answers = {
            one: (of_objects or {})[one.name]
            for one in config.object_choices(control)
            if one.name in (of_objects or {})
        }
        shown = _above_threshold(segmentation, control, answers)
        if _too_many(shown, control) and _has_polygons(segmentations, config, control):
            said.append(
                f"{shown.count} cells are too many for single {control.name} regions in the "
                "browser, so that the polygons carry them."
            )
            continue
        made, note = _regions(shown, control)
        regions += made
        said += [note] if note else []
        scores.append(shown.scores)
    said = list(dict.fromkeys(said))  # a sentence once, in order
    if regions and said:
        regions[0]["meta"] = {"text": said}
    all_scores = np.concatenate(scores) if scores else np.zeros(0)
    parts = [float(all_scores.mean())] if len(all_scores) else []
    for choices_control in config.image_choices:
        found = (classifications or {}).get(choices_control.name)
        if found is not None:
            regions += _choices_items(choices_control, found)
            parts += [] if found.score is None else [found.score]
    score = _rounded(sum(parts) / len(parts)) if parts else None
    return BuiltResult(regions, score, tuple(said))


def _choices_items(
    control: ChoicesControl, found: Classification, *, region_id: str | None = None
) -> list[Region]:
    """Return the items of one classification: its choices, and its cluster where it has a tag.

    `region_id` is of the region that it is about, None where it is about the image.
    """
    items: list[Region] = []
    if found.choices:
        item: Region = {
            "id": region_id or _region_id(control, 0),
            "from_name": control.name,
            "to_name": control.to_name,
            "type": "choices",
            "value": {"choices": list(found.choices)},
        }
        items.append(item if found.score is None else item | {"score": _rounded(found.score)})
    tag = control.cluster_tag
    if tag is not None and found.cluster is not None:
        is_number = tag.tag == "number"
        items.append(
            {
                "id": _region_id(control, 1),
                "from_name": tag.name,
                "to_name": tag.to_name,
                "type": tag.tag,
                "value": {"number": found.cluster} if is_number else {"text": [str(found.cluster)]},
            }
        )
    return items


def _above_threshold(
    segmentation: Segmentation,
    control: Control,
    answers: Mapping[ChoicesControl, Sequence[Classification]],
) -> _Shown:
    kept = segmentation.scoring_at_least(control.score_threshold)
    scores = np.nan_to_num(kept.scores.astype(np.float64), nan=0.0).clip(0, 1)
    numbers = np.flatnonzero(segmentation.above(control.score_threshold)).tolist()
    names = [control.label] * len(numbers)
    for one, found in answers.items():
        if one.is_label:
            names = [
                found[number].choices[0] if found[number].choices else control.label
                for number in numbers
            ]
    return _Shown(
        labels=kept.labels,
        scores=scores,
        names=tuple(names),
        answers={
            one: [found[number] for number in numbers]
            for one, found in answers.items()
            if not one.is_label
        },
    )


def _too_many(shown: _Shown, control: Control) -> bool:
    limit = DEFAULT_MAX_REGIONS if control.max_regions is None else control.max_regions
    return control.tag in PER_PIXEL and shown.count > limit


def _has_polygons(
    segmentations: Mapping[str, Segmentation], config: LabelConfig, control: Control
) -> bool:
    return any(
        other.tag in _POLYGONS and other.to_name == control.to_name and other.name in segmentations
        for other in config.controls
    )


def _regions(shown: _Shown, control: Control) -> tuple[list[Region], str | None]:
    note = None
    if _too_many(shown, control):
        note = (
            f"{shown.count} cells are too many for single {control.name} regions in the browser, "
            "so that one region shows all of a label, with a gap of one pixel between neighbours."
        )
        shown = _merged(shown)
    frame = shown.labels.shape
    values = _WRITERS[control.tag](shown.labels, shown.count)
    regions: list[Region] = []
    for index, (value, score) in enumerate(zip(values, shown.scores.tolist(), strict=True)):
        if value is None:
            continue
        region_id = _region_id(control, index)
        name = shown.names[index]
        regions += _items(control, name, value, _rounded(score), region_id, frame)
        for choices_control, answers in shown.answers.items():
            regions += _choices_items(choices_control, answers[index], region_id=region_id)
    return regions, note


def _merged(shown: _Shown) -> _Shown:
    """Return one mask for each label; what is said of single objects is lost."""
    gaps = merge_instances(shown.labels) > 0
    names = tuple(dict.fromkeys(shown.names))  # in the order of their first instances
    of_instance = np.array([0, *(names.index(name) + 1 for name in shown.names)], np.int32)
    labels = np.where(gaps, of_instance[shown.labels], 0).astype(np.int32)
    scores = [
        float(np.mean([s for s, own in zip(shown.scores, shown.names, strict=True) if own == name]))
        for name in names
    ]
    return _Shown(labels=labels, scores=np.array(scores, np.float64), names=names, answers={})


def _items(
    control: Control,
    name: str,
    value: Value,
    score: float,
    region_id: str,
    frame: tuple[int, ...],
) -> list[Region]:
    """Return the items of one region: a second one holds the labels of a bare tag."""
    kind = control.tag.value.lower()
    if kind.endswith("labels"):
        value = value | {kind: [name]}
    item: Region = {
        "id": region_id,
        "from_name": control.name,
        "to_name": control.to_name,
        "type": kind,
        "value": value,
        "original_width": frame[1],
        "original_height": frame[0],
        "image_rotation": 0,
        "score": score,
    }
    if control.labels_name is None:
        return [item]
    # Label Studio's front end saves a shape with separate Labels as two items with one id, both
    # with the shape; its SDK demands the shape in both.
    labelled = item | {
        "from_name": control.labels_name,
        "type": "labels",
        "value": value | {"labels": [name]},
    }
    return [item, labelled]


def _region_id(control: Control | ChoicesControl, index: int) -> str:
    """Return an id that is unique in the result and the same whenever it is made again."""
    text = f"{control.name}\n{index}".encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _rounded(score: float) -> float:
    return round(score, 4) if math.isfinite(score) else 0.0
