"""Instances as polygons with holes: exact, valid, and the same for every file format."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from shapely.geometry import MultiPolygon, Polygon

from ml_backend.domain import LabelImage
from ml_backend.geometry.filling import polygon_to_mask
from ml_backend.geometry.shapes import Shape, trace_shapes
from tests.label_images import SETS, blobs, noise, real_masks
from tests.shared_data import SHARED, needs_data


def filled(shapes: list[Shape], height: int, width: int) -> LabelImage:
    """Return the label image that the shapes were traced in, by the even-odd rule."""
    labels = np.zeros((height, width), np.int32)
    for shape in shapes:
        for part in shape.parts:
            inside = np.zeros((height, width), np.bool_)
            for ring in part:
                inside ^= polygon_to_mask(ring.astype(float), height, width)
            assert not labels[inside].any()
            labels[inside] = shape.label
    return labels


def picture(*rows: str) -> LabelImage:
    """Return a label image drawn with digits, dots for the background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)


@given(labels=noise(max_side=14, max_label=3))
@settings(max_examples=300, deadline=None)
def test_any_label_image_comes_back(labels: LabelImage) -> None:
    shapes = list(trace_shapes(labels))

    assert [shape.label for shape in shapes] == [int(n) for n in np.unique(labels) if n]
    assert np.array_equal(filled(shapes, *labels.shape), labels)


@given(labels=noise(max_side=14, max_label=2))
@settings(max_examples=300, deadline=None)
def test_every_shape_is_valid_by_the_rules_of_geometry_libraries(labels: LabelImage) -> None:
    for shape in trace_shapes(labels):
        parts = [Polygon(rings[0], rings[1:]) for rings in shape.parts]
        whole = MultiPolygon(parts)

        assert whole.is_valid, shapely.is_valid_reason(whole)
        assert whole.area == (labels == shape.label).sum()
        assert all(part.exterior.is_ccw for part in parts)  # where y points up
        assert not any(hole.is_ccw for part in parts for hole in part.interiors)


@given(labels=blobs())
@settings(max_examples=30, deadline=None)
def test_cells_come_back(labels: LabelImage) -> None:
    assert np.array_equal(filled(list(trace_shapes(labels)), *labels.shape), labels)


def test_only_corners_are_kept() -> None:
    (shape,) = trace_shapes(picture("....", ".11.", ".11."))

    assert [ring.tolist() for ring in shape.parts[0]] == [[[1, 1], [3, 1], [3, 3], [1, 3]]]
    assert not shape.has_holes


def test_a_hole_is_a_ring_and_what_lies_in_it_is_a_part() -> None:
    (ring, island) = trace_shapes(picture("11111", "1...1", "1.2.1", "1...1", "11111"))
    (both,) = trace_shapes(picture("11111", "1...1", "1.1.1", "1...1", "11111"))

    assert [len(part) for part in ring.parts] == [2]
    assert ring.has_holes
    assert [len(part) for part in island.parts] == [1]
    assert sorted(len(part) for part in both.parts) == [1, 2]


def test_a_part_that_touches_itself_at_a_corner_has_a_hole_there() -> None:
    (shape,) = trace_shapes(picture("11.", "1.1", "111"))

    outline, hole = shape.parts[0]
    assert {tuple(corner) for corner in hole.tolist()} == {(1, 1), (2, 1), (2, 2), (1, 2)}
    assert [2, 1] in outline.tolist()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 4)])
def test_nothing_has_no_shapes(shape: tuple[int, int]) -> None:
    assert list(trace_shapes(np.zeros(shape, np.int32))) == []


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_real_cells_come_back(name: str) -> None:
    labels = next(real_masks(SHARED, name))

    assert np.array_equal(filled(list(trace_shapes(labels)), *labels.shape), labels)
