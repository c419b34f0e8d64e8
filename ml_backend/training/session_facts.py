"""What a session makes of its dataset and its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ml_backend.errors import TrainingError
from ml_backend.training.dataset import Dataset
from ml_backend.training.scoring import ImageScore


def data_of(dataset: Dataset) -> dict[str, Any]:
    """Return what a version says of the data it was trained on; the session has the whole list."""
    text = json.dumps(dataset.manifest, sort_keys=True, ensure_ascii=True)
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "training_images": len(dataset.training),
        "held_out_images": len(dataset.hold_out),
    }


def precision_of(scores: Sequence[ImageScore]) -> tuple[float, float, float]:
    """Return the mean AP over images at the IoU thresholds 0.5, 0.75 and 0.9; 0 without images."""
    count = max(len(scores), 1)
    return (
        sum(score.ap50 for score in scores) / count,
        sum(score.ap75 for score in scores) / count,
        sum(score.ap90 for score in scores) / count,
    )


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
