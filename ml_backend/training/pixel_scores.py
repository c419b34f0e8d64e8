"""How well the pixels of objects are found, whatever object they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ml_backend.domain import LabelImage
from ml_backend.training.annotated_image import Area

PixelScores = tuple[float, float, float, float]
"""Precision, recall, F1 and IoU, 0..1 each; 1 where there is nothing and nothing is found."""


@dataclass(frozen=True, kw_only=True)
class PixelCounts:
    """Pixels of objects in one image."""

    outlined: int = 0  # by people
    found: int = 0  # by a network
    shared: int = 0  # by both


def count_pixels(truth: LabelImage, predicted: LabelImage, finished: Area | None) -> PixelCounts:
    """Return the pixels of objects in two label images of the same shape, where it is finished."""
    outlined, found = truth > 0, predicted > 0
    if finished is not None:
        outlined, found = outlined & finished, found & finished
    return PixelCounts(
        outlined=int(np.count_nonzero(outlined)),
        found=int(np.count_nonzero(found)),
        shared=int(np.count_nonzero(outlined & found)),
    )


def pixel_scores(counts: Iterable[PixelCounts]) -> PixelScores:
    """Return the scores over the pixels of all images together."""
    every = list(counts)
    outlined = sum(one.outlined for one in every)
    found = sum(one.found for one in every)
    shared = sum(one.shared for one in every)
    return (
        _share(shared, found),
        _share(shared, outlined),
        _share(2 * shared, outlined + found),
        _share(shared, outlined + found - shared),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
