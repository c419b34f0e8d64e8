"""An annotation read as objects in its image, before it is settled what it is used for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ml_backend.domain import Image
from ml_backend.errors import BadRequest, ImageTooLarge
from ml_backend.labelstudio.targets import Target
from ml_backend.learning import Annotation, LabelledTask, LearningOptions, Side
from ml_backend.training.annotated_image import LARGEST_EDGE, AnnotatedImage
from ml_backend.training.finished_region import finished_area, keep_whole
from ml_backend.training.grouping import group_of
from ml_backend.training.taught_objects import taught_objects


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An annotated image before its side is known."""

    image: AnnotatedImage  # its side is not settled yet
    annotation: Annotation
    outlined: int  # objects of any label
    is_marked: bool  # somebody has said what is finished
    pixels: str  # the group that it would be without `model_group`


def require_usable_size(image: Image) -> None:
    """Check that crops can be cut from an image.

    Raises:
        ImageTooLarge
    """
    if max(image.width, image.height) > LARGEST_EDGE:
        raise ImageTooLarge(
            f"its image has {image.width} x {image.height} pixels, and nothing is learned from "
            f"more than {LARGEST_EDGE} along an edge; cut it into several."
        )


def draft_of(
    task: LabelledTask,
    annotation: Annotation,
    image: Image,
    pixels: str,
    target: Target,
    options: LearningOptions,
) -> Draft:
    """Return what an annotation says of its image.

    Raises:
        BadRequest: it cannot be read; the text says why.
    """
    area = finished_area(annotation.result, options.roi_label, image.height, image.width)
    if area is not None and not area.any():
        raise BadRequest(f"what is labelled {options.roi_label!r} lies outside of the image.")
    taught = taught_objects(
        annotation.result, target, image.height, image.width, roi_label=options.roi_label
    )
    finished = area
    if taught.unknown.any():
        everywhere = np.ones(taught.unknown.shape, np.bool_) if area is None else area
        finished = everywhere & ~taught.unknown
    # what an area cuts is no object; what a region of another label takes away was never one
    labels, whole = keep_whole(taught.labels, area)
    if finished is not None and whole is not None:
        finished = finished & whole
    if finished is not None and not finished.any():
        raise BadRequest(
            "there is no pixel of which it says what it shows; what is finished lies within "
            "objects that reach beyond it or have another label."
        )
    return Draft(
        image=AnnotatedImage(
            task_id=task.task_id,
            annotation_ids=(annotation.annotation_id,),
            group=group_of(task, pixels, options.group_field),
            side=Side.TRAINING,
            image=image,
            labels=labels,
            finished=finished,
            untouched=taught.untouched,
            notes=taught.notes,
        ),
        annotation=annotation,
        outlined=taught.outlined,
        is_marked=area is not None,
        pixels=pixels,
    )


def weighted(drafts: Sequence[Draft]) -> list[Draft]:
    """Return the drafts weighted so that those of one task weigh one together."""
    counts: dict[int, int] = {}
    for draft in drafts:
        counts[draft.image.task_id] = counts.get(draft.image.task_id, 0) + 1
    return [
        replace(draft, image=replace(draft.image, weight=1 / counts[draft.image.task_id]))
        for draft in drafts
    ]
