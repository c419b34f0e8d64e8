from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.domain import LabelImage
from ml_backend.errors import BadRequest
from ml_backend.geometry.patches import Patch, crop_patch
from ml_backend.geometry.runs import find_runs
from ml_backend.labelstudio.bitmask import decode_bitmask, encode_bitmask
from ml_backend.labelstudio.geometry import (
    fill_ellipse,
    from_percent,
    measure_shapes,
    rectangle_corners,
    to_percent,
)
from tests.label_images import noise


@given(labels=noise(), within_rows=st.booleans())
@settings(max_examples=50, deadline=None)
def test_runs_are_the_pixels_of_each_instance(labels: LabelImage, within_rows: bool) -> None:
    runs = find_runs(labels, 4, within_rows=within_rows)

    painted = np.zeros(labels.size, dtype=np.int32)
    for label, start, stop in zip(runs.label, runs.start, runs.stop, strict=True):
        painted[start:stop] = label
    assert np.array_equal(labels.ravel(), painted)
    assert np.array_equal(np.bincount(labels.ravel(), minlength=5)[1:], runs.areas)


@given(labels=noise())
@settings(max_examples=50, deadline=None)
def test_boxes_centres_and_moments_are_those_of_the_pixels(labels: LabelImage) -> None:
    shapes = measure_shapes(labels, 4)

    for index in range(4):
        y, x = np.nonzero(labels == index + 1)
        if len(y) == 0:
            assert np.isnan(shapes.boxes[index]).all()
            continue
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert np.array_equal(box, shapes.boxes[index])
        assert np.allclose([x.mean() + 0.5, y.mean() + 0.5], shapes.ellipses[index, :2])
        column, row = np.floor(shapes.centres[index]).astype(int)
        assert labels[row, column] == index + 1


@pytest.mark.parametrize("rotation", [0.0, 20.0, 44.0, 316.0, 350.0])
@pytest.mark.parametrize(("a", "b"), [(40.0, 15.0), (15.0, 40.0), (25.0, 25.0)])
def test_an_ellipse_is_found_again(a: float, b: float, rotation: float) -> None:
    labels = fill_ellipse(60, 55, a, b, rotation, 120, 130).to_mask(120, 130).astype(np.int32)

    x, y, found_a, found_b, found_rotation = measure_shapes(labels).ellipses[0]

    assert np.allclose([x, y, found_a, found_b], [60, 55, a, b], atol=0.4)
    if a != b:
        assert (found_rotation - rotation + 180) % 360 - 180 == pytest.approx(0, abs=2)


def test_the_centre_of_a_ring_lies_on_the_ring() -> None:
    labels = np.ones((9, 9), dtype=np.int32)
    labels[2:7, 2:7] = 0

    (centre,) = measure_shapes(labels).centres

    assert labels[int(centre[1]), int(centre[0])] == 1


@given(size=st.integers(1, 100_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_rounded_percent_stay_within_a_fiftieth_of_a_pixel(size: int, data: st.DataObject) -> None:
    pixels = np.array(data.draw(st.lists(st.floats(0, size), min_size=1, max_size=5)))

    back = from_percent(to_percent(pixels, size), size)

    assert np.abs(back - pixels).max() <= 0.0201


def test_a_rectangle_turns_about_its_top_left_corner() -> None:
    corners = rectangle_corners(10, 20, 4, 2, 90)

    assert np.allclose([[10, 20], [10, 24], [8, 24], [8, 20]], corners)


@given(mask=noise(max_label=1))
@settings(max_examples=50, deadline=None)
def test_a_bitmask_comes_back(mask: LabelImage) -> None:
    url = encode_bitmask(crop_patch(mask == 1), *mask.shape)

    assert np.array_equal(mask * 255, decode_bitmask(url, *mask.shape))


def test_a_bitmask_from_a_browser_is_read_by_its_opacity() -> None:
    import base64
    import io

    from PIL import Image

    alpha = np.zeros((6, 5), dtype=np.uint8)
    alpha[2:4, 1:3] = 200
    rgba = np.dstack([np.zeros((6, 5, 3), dtype=np.uint8), alpha])
    for picture in (Image.fromarray(rgba), Image.fromarray(rgba).convert("LA")):
        file = io.BytesIO()
        picture.save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

        assert np.array_equal(alpha, decode_bitmask(url, 6, 5))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.org/a.png",
        "data:image/png;base64,",
        "data:image/png;base64,AAAA",
        "data:image/png;base64,not base64!",
        "data:image/jpeg;base64,AAAA",
        "data:image/png;base64," + "A" * 200_000,
        encode_bitmask(Patch(y=0, x=0, mask=np.ones((1, 1), dtype=np.bool_)), 5, 4),
        encode_bitmask(Patch(y=0, x=0, mask=np.ones((1, 1), dtype=np.bool_)), 4, 5)[:-40],
    ],
)
def test_what_is_no_bitmask_of_this_image_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="imageDataURL"):
        decode_bitmask(url, 4, 5)
