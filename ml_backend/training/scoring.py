"""How well a network finds what people outlined, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ml_backend.domain import Component, LabelImage, Priority, SegmentationOptions, Segmenter
from ml_backend.imaging.matching import Overlaps, find_overlaps, match_overlaps
from ml_backend.training.annotated_image import AnnotatedImage, Area
from ml_backend.training.pixel_scores import PixelCounts, count_pixels

THRESHOLDS = (0.5, 0.75, 0.9)  # IoU
_ITS_OWN = 0.9  # IoU with a network's own object from which on a region is taken for it
_ALMOST_ALL = 0.95  # of the objects: a few pixels differ between devices


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """How well one network does on one annotation of one image."""

    task_id: int
    annotation_ids: tuple[int, ...]
    ap50: float  # average precision at IoU 0.5, 0..1; 1 when there is nothing and nothing is found
    ap75: float
    ap90: float
    objects: int  # outlined by people, where it is finished
    found: int  # by the network, where it is finished
    accepted: bool = False  # all objects are this network's own, accepted without a change
    pixels: PixelCounts = field(default_factory=PixelCounts)

    @property
    def mean(self) -> float:
        """Return the mean AP over the three thresholds."""
        return (self.ap50 + self.ap75 + self.ap90) / 3


def score(
    segmenter: Segmenter,
    component: Component,
    images: Sequence[AnnotatedImage],
    options: SegmentationOptions,
    *,
    score_threshold: float = 0.0,
    on_image: Callable[[int], None] = lambda _done: None,
) -> list[ImageScore]:
    """Return how well `component` does on each of `images`, in their order.

    Args:
        segmenter: runs the network as it would be served.
        component: the network.
        images: what people outlined.
        options: as the control that is served has them.
        score_threshold: the control's; objects that score lower are not shown, so do not count.
        on_image: is told how many images are done; it may raise to stop.

    Raises:
        ModelError, OutOfMemory, EngineError
    """
    scores = []
    for done, image in enumerate(images, start=1):
        segmentation = segmenter.segment(
            image.image, options, component=component, priority=Priority.BACKGROUND
        ).scoring_at_least(score_threshold)
        scores.append(score_image(image, segmentation.labels, component.sha256))
        on_image(done)
    return scores


def score_image(image: AnnotatedImage, predicted: LabelImage, sha256: str) -> ImageScore:
    """Return how well the objects that a network predicts fit what people outlined.

    Args:
        image: what people outlined.
        predicted: (Y, X), the network's objects.
        sha256: of the network's weights.
    """
    overlaps = find_overlaps(image.labels, predicted)
    if image.finished is not None:
        predicted = _without_uncertain(predicted, image.finished, overlaps)
        overlaps = find_overlaps(image.labels, predicted)
    low, middle, high = (match_overlaps(overlaps, threshold) for threshold in THRESHOLDS)
    return ImageScore(
        task_id=image.task_id,
        annotation_ids=image.annotation_ids,
        ap50=low.average_precision,
        ap75=middle.average_precision,
        ap90=high.average_precision,
        objects=len(overlaps.truth_ids),
        found=len(overlaps.predicted_ids),
        accepted=_is_its_own(image, overlaps, sha256),
        pixels=count_pixels(image.labels, predicted, image.finished),
    )


def _without_uncertain(predicted: LabelImage, finished: Area, overlaps: Overlaps) -> LabelImage:
    """Return the predicted objects less those of which nobody knows whether they are right.

    Those lie outside of what is finished, or reach beyond its border and are no outlined object.
    """
    outside = np.unique(predicted[~finished])
    is_match = overlaps.iou >= THRESHOLDS[0]
    matched = overlaps.predicted_ids[overlaps.predicted_index[is_match]]
    uncertain = np.setdiff1d(outside[outside > 0], matched)
    return np.where(np.isin(predicted, uncertain), 0, predicted).astype(np.int32)


def _is_its_own(image: AnnotatedImage, overlaps: Overlaps, sha256: str) -> bool:
    """Return whether the objects are what this very network had predicted.

    Which network made a prediction is not always known, and predictions may have been deleted
    since; but regions that nobody changed and that lie where this network's objects lie flatter
    it, whatever name they came under.
    """
    if not image.untouched or not len(overlaps.truth_ids):
        return False
    if sha256 in image.accepted_from:
        return True
    alike = np.unique(overlaps.truth_index[overlaps.iou >= _ITS_OWN])
    return len(alike) >= _ALMOST_ALL * len(overlaps.truth_ids)
