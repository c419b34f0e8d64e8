"""What a session makes of its dataset and its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ml_backend.errors import TrainingError
from ml_backend.training.dataset import Dataset
from ml_backend.training.pixel_scores import PixelScores, pixel_scores
from ml_backend.training.scoring import ImageScore

PIXEL_SCORES = ("precision", "recall", "f1", "iou")
"""The names of `PixelScores`."""


def data_of(dataset: Dataset) -> dict[str, Any]:
    """Return what a version says of the data it was trained on; the session has the whole list."""
    text = json.dumps(dataset.manifest, sort_keys=True, ensure_ascii=True)
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "training_images": len(dataset.training),
        "held_out_images": len(dataset.hold_out),
        **({"test_images": len(dataset.test)} if dataset.test else {}),
    }


def precision_of(scores: Sequence[ImageScore]) -> tuple[float, float, float]:
    """Return the mean AP over images at the IoU thresholds 0.5, 0.75 and 0.9; 0 without images."""
    count = max(len(scores), 1)
    return (
        sum(score.ap50 for score in scores) / count,
        sum(score.ap75 for score in scores) / count,
        sum(score.ap90 for score in scores) / count,
    )


def pixels_of(scores: Sequence[ImageScore]) -> PixelScores:
    """Return precision, recall, F1 and IoU of the pixels of objects over all images."""
    return pixel_scores(score.pixels for score in scores)


def facts_of_test(candidate: Sequence[ImageScore], base: Sequence[ImageScore]) -> dict[str, Any]:
    """Return how the new network and the one before it do on the test set, JSON-able."""
    return {
        "images": len(candidate),
        "objects": sum(score.objects for score in candidate),
        "candidate": _facts_of(candidate),
        "base": _facts_of(base),
    }


def _facts_of(scores: Sequence[ImageScore]) -> dict[str, Any]:
    precision = precision_of(scores)
    return {
        **dict(zip(("ap50", "ap75", "ap90"), precision, strict=True)),
        "mean": sum(precision) / len(precision),
        "found": sum(score.found for score in scores),
        "pixels": dict(zip(PIXEL_SCORES, pixels_of(scores), strict=True)),
    }


def require_something_to_learn(dataset: Dataset) -> None:
    """Check that there is at least one outlined object to train on.

    Raises:
        TrainingError
    """
    if any(int(image.labels.max(initial=0)) for image in dataset.training):
        return
    raise TrainingError(
        f"None of the {len(dataset.training)} images for training holds an outlined object that "
        "can be used; the session's report says what was left out and why."
    )
