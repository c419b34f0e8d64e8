from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.domain import LabelImage, Segmentation
from ml_backend.geometry.filling import fill_polygon, polygon_to_mask
from ml_backend.geometry.outlines import trace_outlines
from ml_backend.labelstudio.annotations import from_regions
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.polygons import MAX_POINTS, to_polygons
from ml_backend.labelstudio.results import build_result
from tests.label_images import SETS, blobs, discs, noise, real_masks
from tests.shared_data import SHARED, needs_data


def largest_part_filled(mask: np.ndarray) -> np.ndarray:
    """Return what a polygon can hold of a mask: its part with the largest outline, no holes."""
    parts = connected_parts(mask, 4)
    best = np.zeros_like(mask)
    for label in range(1, parts.max() + 1):
        # what is 4-connected inside is 8-connected outside
        outside = connected_parts(np.pad(parts != label, 1, constant_values=True), 8)
        filled = (outside != outside[0, 0])[1:-1, 1:-1]
        if filled.sum() > best.sum():
            best = filled
    return best


def connected_parts(mask: np.ndarray, connectivity: int) -> np.ndarray:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[1]


def exact_polygon(labels: LabelImage, label: int) -> np.ndarray:
    outlines = trace_outlines(labels, label)
    part = slice(outlines.bounds[label - 1], outlines.bounds[label])
    return (outlines.start_yx[part] + outlines.step_yx[part] / 2)[:, ::-1]


CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)


@given(labels=noise(max_side=12, max_label=2))
@settings(max_examples=50, deadline=None)
def test_an_outline_filled_gives_the_largest_part_without_holes(labels: LabelImage) -> None:
    for label in (1, 2):
        points = exact_polygon(labels, label)
        if not (labels == label).any():
            assert len(points) == 0
            continue

        mask = polygon_to_mask(points, *labels.shape)

        assert mask.sum() == largest_part_filled(labels == label).sum()
        assert (labels == label)[mask].any()


@given(labels=blobs())
@settings(max_examples=40, deadline=None)
def test_the_polygon_of_a_cell_gives_the_cell_back(labels: LabelImage) -> None:
    polygons = to_polygons(labels)

    for label, points in enumerate(polygons, 1):
        assert points is not None
        truth = largest_part_filled(labels == label)
        mask = polygon_to_mask(points, *labels.shape)
        assert 3 <= len(points) <= MAX_POINTS
        assert (truth & mask).sum() / (truth | mask).sum() >= 0.9


def test_corners_that_touch_diagonally_do_not_join() -> None:
    labels = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=np.int32)

    (points,) = to_polygons(labels)

    assert points is not None
    mask = polygon_to_mask(points, 3, 4)
    assert np.array_equal(mask[:2], labels[:2] == 1)
    assert not mask[2].any()


def test_a_hole_is_filled_and_an_instance_without_pixels_has_no_polygon() -> None:
    labels = np.zeros((9, 9), dtype=np.int32)
    labels[1:8, 1:8] = 3
    labels[3:5, 3:5] = 0
    labels[4, 4] = 1

    first, second, third = to_polygons(labels)

    assert second is None
    assert first is not None
    assert polygon_to_mask(first, 9, 9).sum() == 1
    assert third is not None
    assert polygon_to_mask(third, 9, 9).sum() == 49


def test_the_number_of_points_is_bounded() -> None:
    random = np.random.default_rng(0)
    labels = np.zeros((300, 300), dtype=np.int32)
    reach = random.integers(1, 140, 300)
    for row, length in enumerate(reach):
        labels[row, 150 - length : 150 + length] = 1

    (points,) = to_polygons(labels)

    assert points is not None
    assert len(points) <= MAX_POINTS


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 3), (2, 1), (1, 30), (30, 1), (2, 2)])
def test_tiny_and_thin_instances_survive(shape: tuple[int, int]) -> None:
    labels = np.zeros((40, 40), dtype=np.int32)
    labels[3 : 3 + shape[0], 5 : 5 + shape[1]] = 1

    (points,) = to_polygons(labels)

    assert points is not None
    assert np.array_equal(labels == 1, polygon_to_mask(points, 40, 40))


def test_touching_rectangles_share_no_pixel_and_leave_none() -> None:
    left = np.array([[0, 0], [2.5, 0], [2.5, 4], [0, 4]])
    right = np.array([[2.5, 0], [6, 0], [6, 4], [2.5, 4]])

    both = polygon_to_mask(left, 4, 6).astype(int) + polygon_to_mask(right, 4, 6)

    assert (both == 1).all()


@given(
    points=st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=3, max_size=12)
)
@settings(max_examples=50, deadline=None)
def test_any_polygon_is_filled_within_the_frame(points: list[tuple[float, float]]) -> None:
    patch = fill_polygon(np.array(points), 20, 30)

    assert 0 <= patch.y <= patch.y + patch.mask.shape[0] <= 20
    assert 0 <= patch.x <= patch.x + patch.mask.shape[1] <= 30
    assert patch.to_mask(20, 30).shape == (20, 30)


def test_a_jagged_polygon_is_filled_in_bounded_memory() -> None:
    x = np.arange(2500) % 2 * 0.5 + np.linspace(0, 900, 2500)
    y = np.arange(2500) % 2 * 1000.0
    whole = np.stack([np.append(x, [900, 0]), np.append(y, [1001, 1001])], axis=1)

    mask = polygon_to_mask(whole, 1001, 1000)

    assert mask.any()


def test_no_instances_give_no_polygons() -> None:
    assert to_polygons(np.zeros((5, 6), dtype=np.int32)) == []


def test_only_the_asked_instances_are_outlined() -> None:
    labels = discs(4, diameter=9, height=40, width=40)

    assert len(to_polygons(labels, 2)) == 2


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_polygons_of_real_cells_keep_their_shape(name: str) -> None:
    values = []
    for labels in real_masks(SHARED, name):
        for label, points in enumerate(to_polygons(labels), 1):
            assert points is not None
            top, left = np.maximum(np.floor(points.min(axis=0)).astype(int)[::-1] - 1, 0)
            bottom, right = np.ceil(points.max(axis=0)).astype(int)[::-1] + 1
            truth = labels[top:bottom, left:right] == label
            mask = polygon_to_mask(points - [left, top], *truth.shape)
            values.append((truth & mask).sum() / (truth | mask).sum())

    assert np.median(values) >= 0.99


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_rounded_percent_polygons_of_real_cells_read_back_as_the_cells(name: str) -> None:
    values: list[float] = []
    config = parse_label_config(CONFIG)
    (control,) = config.controls
    for labels in real_masks(SHARED, name):
        count = int(labels.max())
        scores = np.ones(count, np.float32)
        segmentation = Segmentation(labels=labels, scores=scores, diameter=20.0)

        regions = build_result({control.name: segmentation}, config).regions
        read = from_regions(regions, control, *labels.shape).labels

        overlap = np.bincount(labels[labels == read], minlength=count + 1)[1:]
        union = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        union = union + np.bincount(read.ravel(), minlength=count + 1)[1:] - overlap
        values += list(overlap / union)

    assert np.median(values) >= 0.95
