"""Labelled images and objects with their embeddings, and what a session says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.labelstudio.targets import ChoicesTarget, subject_of
from ml_backend.learning import LearningOptions, Side
from ml_backend.training.chosen import Chosen
from ml_backend.training.dataset_report import Notes, shortened

Item = tuple[int, int]
"""A task, and the number of an object in its image; 0 = the whole image."""


@dataclass(frozen=True, kw_only=True)
class ChosenImage:
    """An image and what one annotation chose for it."""

    task_id: int
    annotation_id: int
    content_hash: str  # of the annotation
    image_sha256: str
    group: str
    pixels: str  # the group that it would be without `model_group`
    side: Side
    chosen: Chosen
    embedding: npt.NDArray[np.float32] = field(repr=False)  # (D,)
    number: int = 0  # of an object in the image, from 1; 0 = the whole image

    @property
    def item(self) -> Item:
        """Return what it is of, unique among those that are embedded."""
        return self.task_id, self.number


@dataclass(frozen=True, kw_only=True)
class ChoicesDataset:
    """The labelled images of a session, on the two sides of the split."""

    training: Sequence[ChosenImage]
    hold_out: Sequence[ChosenImage]
    manifest: Mapping[str, Any] = field(repr=False)
    report: Mapping[str, Any] = field(repr=False)


def manifest_of(
    images: Sequence[ChosenImage],
    task_hashes: Mapping[int, str],
    target: ChoicesTarget,
    options: LearningOptions,
    notes: Notes,
) -> dict[str, Any]:
    """Return what a session learns from, JSON-able."""
    return {
        "task_hashes": {
            str(task_id): text
            for task_id, text in task_hashes.items()
            if task_id not in notes.not_fetched
        },
        "not_fetched": {str(task): task_hashes[task] for task in sorted(notes.not_fetched)},
        "subject": subject_of(target, options),
        "controls": list(target.names),
        "images": [
            {
                "task": image.task_id,
                "object": image.number,
                "annotations": [image.annotation_id],
                "content_hash": image.content_hash,
                "image_sha256": image.image_sha256,
                "group": image.group,
                "side": image.side.value,
                "chosen": {name: sorted(chosen) for name, chosen in image.chosen.items()},
            }
            for image in images
        ],
    }


def report_of(images: Sequence[ChosenImage], target: ChoicesTarget, notes: Notes) -> dict[str, Any]:
    """Return what a person should know of what a session learns from, JSON-able."""
    counts: dict[str, dict[str, int]] = {}
    for control in target.controls:
        of_choice = {
            choice: sum(choice in image.chosen.get(control.name, ()) for image in images)
            for choice in control.choices
        }
        counts[control.name] = {choice: count for choice, count in of_choice.items() if count}
    return {
        "images": {side.value: sum(image.side is side for image in images) for side in Side},
        "chosen": counts,
        "left_out": shortened(notes.left_out),
        "remarks": shortened(notes.remarks),
    }
