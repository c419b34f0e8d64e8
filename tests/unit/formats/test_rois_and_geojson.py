"""Outlines for Fiji and QuPath: filled as those programs do, they give the masks back."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from roifile import ROI_TYPE, ImagejRoi
from shapely.geometry import shape as geometry_of

from ml_backend.domain import LabelImage
from ml_backend.formats.geojson import write_geojson
from ml_backend.formats.imagej_rois import write_rois
from ml_backend.geometry.filling import polygon_to_mask
from tests.label_images import SETS, blobs, draw_cells, noise, real_masks
from tests.shared_data import SHARED, needs_data


def rois_of(labels: LabelImage, scores: np.ndarray | None = None) -> list[ImagejRoi]:
    """Return the ROIs that are written for a label image, read again."""
    file = io.BytesIO()
    write_rois(file, labels, scores)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        rois = [ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
        assert archive.namelist() == [f"{roi.name}.roi" for roi in rois]
    return rois


def masks_of(rois: list[ImagejRoi], height: int, width: int) -> LabelImage:
    """Return the label image that ROIs make, filled by the even-odd rule as ImageJ does."""
    labels = np.zeros((height, width), np.int32)
    for roi in rois:
        inside = np.zeros((height, width), np.bool_)
        rings = roi.coordinates(multi=True) if roi.composite else [roi.coordinates()]
        for ring in rings:
            inside ^= polygon_to_mask(np.asarray(ring, float), height, width)
        labels[inside] = int(roi.name)
    return labels


def features_of(labels: LabelImage, *args: Any, **more: Any) -> list[dict[str, Any]]:
    """Return the features that are written for a label image."""
    file = io.BytesIO()
    write_geojson(file, labels, *args, **more)
    collection = json.loads(file.getvalue())
    assert collection["type"] == "FeatureCollection"
    features: list[dict[str, Any]] = collection["features"]
    return features


def filled(features: list[dict[str, Any]], height: int, width: int) -> LabelImage:
    """Return the label image that features make, by the pixel-centre rule."""
    labels = np.zeros((height, width), np.int32)
    for feature in features:
        geometry = feature["geometry"]
        is_multi = geometry["type"] == "MultiPolygon"
        for polygon in geometry["coordinates"] if is_multi else [geometry["coordinates"]]:
            inside = np.zeros((height, width), np.bool_)
            for ring in polygon:
                assert ring[0] == ring[-1]
                inside ^= polygon_to_mask(np.asarray(ring[:-1], float), height, width)
            labels[inside] = feature["properties"]["measurements"]["Label"]
    return labels


@given(labels=noise(max_side=12, max_label=3))
@settings(max_examples=150, deadline=None)
def test_any_label_image_comes_back_from_rois(labels: LabelImage) -> None:
    assert np.array_equal(masks_of(rois_of(labels), *labels.shape), labels)


@given(labels=noise(max_side=12, max_label=3))
@settings(max_examples=150, deadline=None)
def test_any_label_image_comes_back_from_geojson(labels: LabelImage) -> None:
    features = features_of(labels)

    assert np.array_equal(filled(features, *labels.shape), labels)
    for feature in features:
        assert geometry_of(feature["geometry"]).is_valid


@given(labels=blobs())
@settings(max_examples=25, deadline=None)
def test_cells_come_back_from_both(labels: LabelImage) -> None:
    assert np.array_equal(masks_of(rois_of(labels), *labels.shape), labels)
    assert np.array_equal(filled(features_of(labels), *labels.shape), labels)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_real_cells_come_back_from_both(name: str) -> None:
    labels = next(real_masks(SHARED, name))

    assert np.array_equal(masks_of(rois_of(labels), *labels.shape), labels)
    assert np.array_equal(filled(features_of(labels), *labels.shape), labels)


def test_a_cell_is_a_traced_roi_and_one_with_a_hole_a_composite_one() -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[1:4, 2:6] = 1
    labels[5:9, 5:9] = 2
    labels[6:8, 6:8] = 0

    cell, ring = rois_of(labels, np.array([0.25, 0.5], np.float32))

    assert (cell.name, cell.roitype, cell.props) == ("0001", ROI_TYPE.TRACED, "score: 0.2500\n")
    assert (cell.left, cell.top, cell.right, cell.bottom) == (2, 1, 6, 4)
    assert cell.coordinates().tolist() == [[2, 1], [6, 1], [6, 4], [2, 4]]
    assert ring.composite
    assert (ring.left, ring.top, ring.right, ring.bottom) == (5, 5, 9, 9)


def test_rois_beyond_whole_numbers_are_floats() -> None:
    labels = np.zeros((2, 70_000), np.int32)
    labels[:, 69_990:69_999] = 1
    labels[:, 40_000:40_010] = 2

    far, near = rois_of(labels)

    assert far.coordinates().tolist() == [[69990, 0], [69999, 0], [69999, 2], [69990, 2]]
    assert far.subpixelresolution
    assert near.coordinates().tolist() == [[40000, 0], [40010, 0], [40010, 2], [40000, 2]]
    assert not near.subpixelresolution


def test_numbers_have_as_many_digits_as_the_highest_needs() -> None:
    labels = np.array([[1, 123_456]], np.int32)

    assert [roi.name for roi in rois_of(labels)] == ["000001", "123456"]


def test_the_same_masks_give_the_same_archive() -> None:
    labels = draw_cells(seed=3, count=8, height=60, width=70, radius=7)
    first, second = io.BytesIO(), io.BytesIO()

    write_rois(first, labels)
    write_rois(second, labels)

    assert first.getvalue() == second.getvalue()


def test_features_are_what_qupath_makes_objects_of() -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[1:4, 2:6] = 1
    labels[6:8, 0:2] = labels[6:8, 4:6] = 2

    one, two = features_of(labels, np.array([0.25, 0.123456], np.float32), name="a.tif")

    assert one["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]],
    }
    assert one["properties"] == {
        "objectType": "detection",
        "measurements": {"Label": 1, "Score": 0.25},
        "classification": {"name": "Cell"},
    }
    assert two["geometry"]["type"] == "MultiPolygon"
    assert two["properties"]["measurements"]["Score"] == 0.1235
    assert uuid.UUID(one["id"]) != uuid.UUID(two["id"])


def test_a_feature_can_be_an_annotation_without_a_class() -> None:
    (feature,) = features_of(
        np.ones((2, 2), np.int32), None, object_type="annotation", classification=None
    )

    assert feature["properties"] == {"objectType": "annotation", "measurements": {"Label": 1}}


def test_ids_are_the_same_for_the_same_image_only() -> None:
    labels = np.array([[1, 0, 2]], np.int32)

    first, again, other = (
        [feature["id"] for feature in features_of(labels, name=name)]
        for name in ("a.tif", "a.tif", "b.tif")
    )

    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("shape", [(0, 0), (3, 4)])
def test_no_instances_are_files_all_the_same(shape: tuple[int, int]) -> None:
    labels = np.zeros(shape, np.int32)

    assert rois_of(labels) == []
    assert features_of(labels) == []


def test_rings_turn_at_every_point() -> None:
    labels = draw_cells(seed=5, count=10, height=60, width=70, radius=8)

    for feature in features_of(labels):
        (ring,) = feature["geometry"]["coordinates"]
        steps = [(b[0] - a[0] != 0, b[1] - a[1] != 0) for a, b in pairwise(ring)]
        assert all(one != other for one, other in pairwise(steps))
