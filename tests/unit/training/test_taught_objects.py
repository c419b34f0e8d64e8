"""What an annotation teaches."""

from __future__ import annotations

import numpy as np
import pytest

from ml_backend.errors import BadRequest
from ml_backend.training.taught_objects import TaughtObjects, taught_objects
from tests.annotations_of import (
    config_of,
    rectangle,
    regions_of,
    squares,
    target_of,
)

BOTH = config_of("PolygonLabels", "BrushLabels")
BOXES_TOO = config_of("RectangleLabels", "PolygonLabels")


def taught(regions: list[dict[str, object]], *tags: str, roi: str | None = None) -> TaughtObjects:
    config = config_of(*(tags or ("PolygonLabels",)))
    return taught_objects(regions, target_of(config), 100, 100, roi_label=roi)


@pytest.mark.parametrize(
    "tag", ["PolygonLabels", "BrushLabels", "BitmaskLabels", "RectangleLabels"]
)
def test_every_outlining_control_teaches_its_objects(tag: str) -> None:
    drawn = squares((5, 5), (40, 60), (40, 70))

    found = taught(regions_of(drawn, config_of(tag)), tag)

    assert np.array_equal(found.labels > 0, drawn > 0)
    assert found.labels.max() == 3
    assert found.outlined == 3
    assert not found.unknown.any()


def test_an_annotation_without_a_region_is_an_image_without_objects() -> None:
    found = taught([])

    assert found.labels.max() == 0
    assert not found.unknown.any()
    assert not found.untouched


def test_objects_of_another_label_are_neither_objects_nor_background() -> None:
    regions = regions_of(squares((5, 5), (40, 60)), config_of("PolygonLabels"))
    regions[1]["value"]["polygonlabels"] = ["Debris"]

    found = taught(regions)

    assert np.array_equal(found.labels, squares((5, 5)))
    assert np.array_equal(found.unknown, squares((40, 60)) > 0)
    assert found.outlined == 2


def test_objects_of_all_labels_are_learned_where_labels_are_told_apart() -> None:
    config = config_of("PolygonLabels", options="")
    drawn = squares((5, 5), (40, 60))
    regions = regions_of(drawn, config)
    regions[1]["value"]["polygonlabels"] = ["Debris"]

    found = taught_objects(regions, target_of(config), 100, 100)

    assert np.array_equal(found.labels, drawn)
    assert not found.unknown.any()


def test_what_says_what_is_finished_is_no_object() -> None:
    area = rectangle(0, 0, 80, 80, "Done") | {"from_name": "rectanglelabels"}

    found = taught([area], "RectangleLabels", roi="Done")

    assert found.outlined == 0
    assert not found.unknown.any()


def test_a_cell_drawn_by_two_controls_is_one() -> None:
    drawn = squares((5, 5), (40, 60))

    found = taught(regions_of(drawn, BOTH), "PolygonLabels", "BrushLabels")

    assert found.outlined == 2
    assert np.array_equal(found.labels > 0, drawn > 0)


def test_of_two_controls_the_one_that_a_person_changed_counts() -> None:
    predicted = squares((5, 5))
    changed = squares((5, 7))
    untouched = regions_of(predicted, config_of("PolygonLabels"), origin="prediction")
    by_hand = regions_of(changed, config_of("BrushLabels"), origin="prediction-changed")

    found = taught([*untouched, *by_hand], "PolygonLabels", "BrushLabels")

    assert np.array_equal(found.labels, changed)
    assert not found.untouched


def test_a_box_says_that_there_is_a_cell_where_outlines_are_drawn_too() -> None:
    outline = regions_of(squares((5, 5)), config_of("PolygonLabels"))
    boxes = regions_of(squares((5, 5), (60, 60)), config_of("RectangleLabels"))

    found = taught([*boxes, *outline], "RectangleLabels", "PolygonLabels")

    assert np.array_equal(found.labels, squares((5, 5)))
    assert np.array_equal(found.unknown, squares((60, 60)) > 0)


def test_a_drawn_box_does_not_replace_an_outline() -> None:
    outline = regions_of(squares((5, 5)), config_of("PolygonLabels"), origin="prediction")
    box = regions_of(squares((5, 5)), config_of("RectangleLabels"), origin="manual")

    found = taught([*box, *outline], "RectangleLabels", "PolygonLabels")

    assert np.array_equal(found.labels, squares((5, 5)))
    assert not found.unknown.any()


def test_regions_that_nobody_changed_are_untouched() -> None:
    drawn = squares((5, 5), (40, 60))
    regions = regions_of(drawn, config_of("PolygonLabels"), origin="prediction")

    assert taught(regions).untouched
    regions[0]["origin"] = "prediction-changed"
    assert not taught(regions).untouched
    del regions[0]["origin"]
    assert not taught(regions).untouched


def test_a_region_that_cannot_be_read_is_named() -> None:
    regions = regions_of(squares((5, 5)), config_of("PolygonLabels"))
    regions[0]["value"]["points"] = [[0, 0]]

    with pytest.raises(BadRequest, match=str(regions[0]["id"])):
        taught(regions)
