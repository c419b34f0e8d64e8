"""The built-in embedder describes every image, the same whichever way it lies."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml_backend.domain import Pixels
from ml_backend.engines import descriptors
from ml_backend.engines.descriptor_foreground import LONGEST_SIDE, find_foreground
from ml_backend.engines.descriptors import DIMENSION, GROUPS, describe, embedder_sha256
from ml_backend.engines.scaling import Scaling, fit_scaling
from ml_backend.errors import ImageError
from tests.shared_data import SHARED, needs_data

pytestmark = pytest.mark.unhurried

TYPES = [np.bool_, np.uint8, np.int8, np.uint16, np.int32, np.float16, np.float32, np.float64]


def tadpole(edge: int = 80, *, tail: float = 1.0, angle: float = 20.0) -> Pixels:
    """Return a dark head with a tail and an eye on white, (edge, edge, 1) uint8."""
    crop = np.full((edge, edge), 245, np.uint8)
    middle, size = edge // 2, edge / 80
    radians = np.deg2rad(angle)
    tip = (
        round(middle + 30 * tail * size * np.cos(radians)),
        round(middle + 30 * tail * size * np.sin(radians)),
    )
    cv2.line(crop, (middle, middle), tip, 90, max(1, round(3 * size)))
    axes = (round(14 * size), round(9 * size))
    cv2.ellipse(crop, (middle, middle), axes, angle, 0, 360, 60, -1)
    cv2.circle(crop, (middle - round(5 * size), middle), max(1, round(3 * size)), 200, -1)
    return cv2.GaussianBlur(crop, (0, 0), 0.8)[..., None]


def zoo() -> list[Pixels]:
    """Return forty crops that differ in size, tail and direction."""
    random = np.random.default_rng(0)
    return [
        tadpole(
            int(random.integers(40, 120)),
            tail=float(random.uniform(0, 1.2)),
            angle=float(random.uniform(0, 360)),
        )
        for _ in range(40)
    ]


@pytest.fixture(scope="module")
def scaling() -> Scaling:
    return fit_scaling(np.stack([describe(crop) for crop in zoo()]), groups=GROUPS)


def distance(scaling: Scaling, one: Pixels, other: Pixels) -> float:
    first, second = scaling.apply(np.stack([describe(one), describe(other)]))
    return float(np.linalg.norm(first - second))


@given(
    st.sampled_from(TYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 5)),
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_every_array_has_a_finite_description(pixels: Pixels) -> None:
    description = describe(pixels)

    assert description.shape == (DIMENSION,)
    assert description.dtype == np.float32
    assert np.isfinite(description).all()


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 300, 1), (300, 1, 3), (2, 2, 7), (3, 257, 2), (1100, 900, 1)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_size_has_a_finite_description(
    shape: tuple[int, int, int], dtype: npt.DTypeLike
) -> None:
    pixels = (np.random.default_rng(0).random(shape) * 250).astype(dtype)

    description = describe(pixels)

    assert description.shape == (DIMENSION,)
    assert np.isfinite(description).all()


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_image_has_a_finite_description(value: int) -> None:
    pixels = np.full((50, 60, 3), value, np.uint8)

    assert np.isfinite(describe(pixels)).all()


def test_an_image_of_no_number_has_a_finite_description() -> None:
    pixels = np.full((30, 30, 1), np.nan, np.float32)

    assert np.isfinite(describe(pixels)).all()


def test_the_largest_numbers_have_a_finite_description() -> None:
    pixels = np.full((30, 30, 1), -np.finfo(np.float64).max)
    pixels[10:20, 10:15] = np.finfo(np.float64).max
    pixels[0, 0], pixels[5, 5] = np.inf, -np.inf

    description = describe(pixels)

    assert np.isfinite(description).all()
    assert find_foreground(pixels).body[12, 12]


@pytest.mark.parametrize("shape", [(0, 5, 1), (5, 0, 1), (5, 5, 0), (5, 5)])
def test_no_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="no pixels"):
        describe(np.zeros(shape, np.uint8))


def test_the_same_crop_has_the_same_description() -> None:
    crop = tadpole()

    np.testing.assert_array_equal(describe(crop), describe(crop.copy()))


def test_an_image_in_any_order_of_memory_has_the_same_description() -> None:
    crop = np.repeat(tadpole(), 3, axis=2)

    np.testing.assert_array_equal(describe(crop), describe(np.asfortranarray(crop)))


def test_a_description_leaves_the_image_as_it_was() -> None:
    crop = tadpole().astype(np.float32)
    before = crop.copy()

    describe(crop)

    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize(
    "turned",
    [
        lambda crop: np.rot90(crop),
        lambda crop: np.rot90(crop, 2),
        lambda crop: np.rot90(crop, 3),
        lambda crop: crop[:, ::-1],
        lambda crop: crop[::-1],
        lambda crop: crop.transpose(1, 0, 2),
    ],
)
def test_a_turned_or_mirrored_crop_stays_near(
    scaling: Scaling, turned: Callable[[Pixels], Pixels]
) -> None:
    crop = tadpole(81)

    moved = distance(scaling, crop, turned(crop))

    # unrelated unit vectors are 1.41 apart
    assert moved < 0.5
    assert moved < distance(scaling, crop, tadpole(81, tail=0.0)) / 2


def test_the_absolute_size_counts() -> None:
    small, large = (describe(tadpole(edge)) for edge in (60, 120))

    grown = (large - small)[GROUPS["size"]]

    assert grown[0] == pytest.approx(2 * np.log(2), abs=0.15)  # area
    assert grown[6] == pytest.approx(np.log(2), abs=0.1)  # along the long axis


def test_the_absolute_size_survives_the_shrinking_of_large_crops() -> None:
    edge = 3 * LONGEST_SIDE
    whole = tadpole(LONGEST_SIDE)
    larger = cv2.resize(whole, (edge, edge), interpolation=cv2.INTER_LINEAR)[..., None]

    grown = (describe(larger) - describe(whole))[GROUPS["size"]]

    assert grown[0] == pytest.approx(2 * np.log(3), abs=0.15)
    assert grown[6] == pytest.approx(np.log(3), abs=0.1)
    assert grown[11] == pytest.approx(np.log(3), abs=0.01)  # the crop's side


def test_bright_on_dark_is_found_like_dark_on_bright() -> None:
    crop = tadpole()

    np.testing.assert_array_equal(find_foreground(crop).body, find_foreground(255 - crop).body)


def test_colour_counts() -> None:
    crop = np.full((60, 60, 3), 220, np.uint8)
    red, blue = crop.copy(), crop.copy()
    red[20:40, 20:40] = (200, 60, 60)
    blue[20:40, 20:40] = (60, 60, 200)

    colours = [describe(one)[GROUPS["colour"]] for one in (red, blue)]

    assert colours[0][1] > 0.3 > colours[1][1]  # red minus green


def test_sixteen_bits_are_described_by_their_own_range() -> None:
    crop = tadpole().astype(np.uint16)

    np.testing.assert_allclose(describe(crop * 3 + 500), describe(crop * 9 + 20), atol=0.05)


def test_a_gray_image_is_described_alike_with_one_channel_and_with_three(
    scaling: Scaling,
) -> None:
    crop = tadpole()

    assert distance(scaling, crop, np.repeat(crop, 3, axis=2)) < 0.05


def test_families_cover_the_description_once() -> None:
    covered = np.zeros(DIMENSION, np.int64)
    for columns in GROUPS.values():
        covered[columns] += 1

    assert (covered == 1).all()


def test_the_hash_names_the_embedder_and_changes_with_its_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = embedder_sha256()
    monkeypatch.setattr(descriptors, "REVISION", descriptors.REVISION + 1)

    assert len(before) == 64
    assert embedder_sha256() != before


def test_what_a_revision_says_of_an_image_never_changes() -> None:
    # whoever has to change these numbers raises REVISION, because kept descriptions are then stale
    described = describe(tadpole())

    lengths = {name: float(np.linalg.norm(described[part])) for name, part in GROUPS.items()}

    assert descriptors.REVISION == 1
    assert lengths == pytest.approx(
        {
            "size": 15.321,
            "whole size": 14.214,
            "shape": 12.758,
            "whole shape": 12.805,
            "outline": 25.494,
            "intensity": 2.445,
            "colour": 1.452,
            "patterns": 2.646,
            "covariance": 34.778,
            "crop covariance": 30.973,
            "scattering": 8.786,
            "template": 4.801,
            "symmetry": 2.819,
        },
        abs=0.002,
    )


def test_another_process_describes_alike() -> None:
    script = (
        "import hashlib; from tests.unit.engines.test_descriptors import tadpole;"
        "from ml_backend.engines.descriptors import describe;"
        "print(hashlib.sha256(describe(tadpole()).tobytes()).hexdigest())"
    )

    answers = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }

    assert len(answers) == 1


@needs_data
@pytest.mark.data
def test_blood_cells_lie_nearest_to_their_own_kind() -> None:
    folder = SHARED / "bccd_cells"
    with (folder / "index.csv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index))[::3]
    labels = np.array([row["label"] for row in rows])
    crops = [cv2.imread(str(folder / row["file"]))[..., ::-1] for row in rows]
    descriptions = np.stack([describe(crop) for crop in crops])

    points = fit_scaling(descriptions, groups=GROUPS).apply(descriptions)
    nearness = points @ points.T
    np.fill_diagonal(nearness, -np.inf)

    assert (labels[nearness.argmax(axis=1)] == labels).mean() > 0.9
