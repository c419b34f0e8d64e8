"""Which part of an image counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.domain import LabelImage
from ml_backend.errors import BadRequest
from ml_backend.training.finished_region import finished_area, keep_whole
from tests.annotations_of import rectangle, regions_of, squares
from tests.label_images import blobs


def test_several_rectangles_are_finished_together() -> None:
    regions = [rectangle(0, 0, 20, 100, "Done"), rectangle(50, 0, 10, 50, "Done")]

    area = finished_area(regions, "Done", 100, 100)

    assert area is not None
    assert area[:, :20].all()
    assert area[:50, 50:60].all()
    assert area.sum() == 2000 + 500


def test_without_such_a_rectangle_the_whole_image_is_finished() -> None:
    regions = [rectangle(0, 0, 20, 100, "Something else"), *regions_of(squares((5, 5)))]

    assert finished_area(regions, "Done", 100, 100) is None
    assert finished_area([rectangle(0, 0, 20, 100, "Done")], None, 100, 100) is None


def test_a_bare_rectangle_has_its_label_in_a_second_item() -> None:
    labelled = rectangle(0, 0, 50, 100, "Done")
    labelled["type"] = "labels"
    labelled["value"]["labels"] = labelled["value"].pop("rectanglelabels")

    area = finished_area([labelled], "Done", 100, 100)

    assert area is not None
    assert area.sum() == 5000


def test_a_stroke_with_the_label_is_refused_with_what_to_do() -> None:
    stroke = {"value": {"format": "rle", "rle": [0], "brushlabels": ["Done"]}}

    with pytest.raises(BadRequest, match="draw one around what is finished"):
        finished_area([stroke], "Done", 100, 100)


def test_an_object_cut_by_the_border_is_neither_object_nor_background() -> None:
    labels = squares((10, 10), (45, 45), (80, 80))
    area = np.zeros((100, 100), np.bool_)
    area[:50, :50] = True

    kept, finished = keep_whole(labels, area)

    assert finished is not None
    assert kept.max() == 1
    assert (kept > 0).sum() == 100
    assert not finished[45:50, 45:50].any()
    assert finished.sum() == 50 * 50 - 25


@given(
    labels=blobs(max_cells=15),
    box=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=50, deadline=None)
def test_every_object_lies_wholly_inside_or_not_at_all(
    labels: LabelImage, box: tuple[float, float, float, float]
) -> None:
    height, width = labels.shape
    area = np.zeros(labels.shape, np.bool_)
    top, bottom = sorted(int(edge * height) for edge in box[:2])
    left, right = sorted(int(edge * width) for edge in box[2:])
    area[top:bottom, left:right] = True

    kept, finished = keep_whole(labels, area)

    assert finished is not None
    whole = [n for n in range(1, labels.max(initial=0) + 1) if area[labels == n].all()]
    assert kept.max(initial=0) == len(whole)
    assert np.array_equal(kept > 0, np.isin(labels, whole))
    assert not (finished & ~area).any()
    # what is left to be background is background
    assert not (labels[finished & (kept == 0)] > 0).any()
