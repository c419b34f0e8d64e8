"""What a session says of its dataset: the manifest's entries and the report for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.draft import Draft

_SENTENCES = 200  # of one kind in a report


@dataclass(kw_only=True)
class Notes:
    """What there is to say while a dataset is built; a sentence each."""

    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    not_fetched: set[int] = field(default_factory=set)  # tasks; another try may get their images


def manifest_entry(image: AnnotatedImage, draft: Draft) -> dict[str, Any]:
    """Return what a manifest says of an image, JSON-able."""
    return {
        "task": image.task_id,
        "annotations": list(image.annotation_ids),
        "content_hash": draft.annotation.content_hash,
        "image_sha256": image.image.sha256,
        "group": image.group,
        "side": image.side.value,
        "objects": image.objects,
        "outlined": draft.outlined,
        "weight": image.weight,
        "finished_share": 1.0 if image.finished is None else float(image.finished.mean()),
        "untouched": image.untouched,
        "accepted_from": sorted(image.accepted_from),
    }


def report_of(
    training: Sequence[AnnotatedImage],
    hold_out: Sequence[AnnotatedImage],
    notes: Notes,
    diameter: float | None,
    spread: float,
    test: Sequence[AnnotatedImage] = (),
) -> dict[str, Any]:
    """Return what a session's report says of its images, JSON-able."""
    sides = {"training": training, "hold_out": hold_out}
    if test:
        sides["test"] = test
    remarks = [
        f"{image.title}: {note}"
        for image in (*training, *hold_out, *test)
        for note in (*image.image.notes, *image.notes)
    ]
    return {
        "images": {name: len(images) for name, images in sides.items()},
        "objects": {name: sum(image.objects for image in images) for name, images in sides.items()},
        "empty_images": {
            name: sum(not image.objects for image in images) for name, images in sides.items()
        },
        "diameter": diameter,
        "diameter_spread": spread,
        "left_out": shortened(notes.left_out),
        "unfinished": notes.unfinished[:_SENTENCES],
        "remarks": shortened([*notes.remarks, *remarks]),
    }


def shortened(sentences: Sequence[str]) -> list[str]:
    """Return the first sentences of many, and how many more there are."""
    if len(sentences) <= _SENTENCES:
        return list(sentences)
    more = len(sentences) - _SENTENCES
    return [*sentences[:_SENTENCES], f"There are {more} more of these."]
