"""Single objects cut out of an image, as classifiers of objects see them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage, Pixels

RIM = 3  # pixels around an object that stay visible: its edge, and what it lies on
MARGIN = 4  # pixels of background around that


def cut_out(pixels: Pixels, labels: LabelImage) -> Iterator[Pixels]:
    """Yield each object of an image alone before the image's background, 1..N in order.

    What is not the object (but for a rim around it) is filled with the median of the background
    near it, so that neighbours say nothing about it.

    Args:
        pixels: (Y, X, C), any data type.
        labels: (Y, X), 0 = background, 1..N.
    """
    boxes = _boxes(labels)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM + 1, 2 * RIM + 1))
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        pad = RIM + MARGIN
        rows = slice(max(0, top - pad), min(labels.shape[0], bottom + pad))
        columns = slice(max(0, left - pad), min(labels.shape[1], right + pad))
        own = labels[rows, columns] == number
        visible = cv2.dilate(own.astype(np.uint8), kernel).astype(bool)
        # a neighbour that touches is not a part of the rim
        visible &= own | (labels[rows, columns] == 0)
        crop = pixels[rows, columns].copy()
        crop[~visible] = _background(crop, labels[rows, columns])
        yield crop


def _boxes(labels: LabelImage) -> list[tuple[int, int, int, int]]:
    """Return top, left, bottom, right (the last two exclusive) of objects 1..N."""
    count = int(labels.max(initial=0))
    top = np.full(count + 1, labels.shape[0])
    left = np.full(count + 1, labels.shape[1])
    bottom, right = np.zeros(count + 1, int), np.zeros(count + 1, int)
    rows, columns = np.nonzero(labels)
    of_pixel = labels[rows, columns]
    np.minimum.at(top, of_pixel, rows)
    np.minimum.at(left, of_pixel, columns)
    np.maximum.at(bottom, of_pixel, rows + 1)
    np.maximum.at(right, of_pixel, columns + 1)
    return list(zip(*(one[1:].tolist() for one in (top, left, bottom, right)), strict=True))


def _background(crop: Pixels, labels: LabelImage) -> npt.NDArray[np.generic]:
    """Return the median of the background of each channel, (C,), of the crop's data type."""
    free = crop[labels == 0]
    values = np.median(free if len(free) else crop.reshape(-1, crop.shape[2]), axis=0)
    found: npt.NDArray[np.generic] = values.astype(crop.dtype)
    return found
