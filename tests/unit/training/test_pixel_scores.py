"""How well the pixels of objects are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from ml_backend.training.pixel_scores import PixelCounts, count_pixels, pixel_scores
from tests.label_images import noise


def test_pixels_are_counted_whatever_object_they_belong_to() -> None:
    truth = np.array([[1, 1, 2, 0]], np.int32)
    predicted = np.array([[3, 0, 3, 3]], np.int32)

    counts = count_pixels(truth, predicted, None)

    assert counts == PixelCounts(outlined=3, found=3, shared=2)
    assert pixel_scores([counts]) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 2 / 4))


def test_what_is_not_finished_does_not_count() -> None:
    finished = np.array([[True, False]])

    counts = count_pixels(np.array([[1, 1]], np.int32), np.array([[1, 0]], np.int32), finished)

    assert counts == PixelCounts(outlined=1, found=1, shared=1)


def test_images_count_by_their_pixels() -> None:
    large = PixelCounts(outlined=90, found=90, shared=90)
    small = PixelCounts(outlined=10, found=0, shared=0)

    precision, recall, _, iou = pixel_scores([large, small])

    assert (precision, recall, iou) == pytest.approx((1.0, 0.9, 0.9))


def test_nothing_where_there_is_nothing_is_right() -> None:
    assert pixel_scores([]) == (1, 1, 1, 1)
    assert pixel_scores([PixelCounts(outlined=5)]) == (1, 0, 0, 0)


@given(truth=noise())
def test_scores_lie_between_none_and_all_and_agree(truth: np.ndarray) -> None:
    other = np.roll(truth, 1, axis=0)

    precision, recall, f1, iou = pixel_scores([count_pixels(truth, other, None)])

    assert all(0 <= score <= 1 for score in (precision, recall, f1, iou))
    assert f1 == pytest.approx(2 * iou / (1 + iou))
    assert pixel_scores([count_pixels(truth, truth, None)]) == (1, 1, 1, 1)
