"""Arrays that programs send: which axis is which, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ml_backend.domain import Image
from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.imaging.arrays import image_of_array


def image(array: np.ndarray, **more: object) -> Image:
    """Return the image of an array within 1 megapixel."""
    return image_of_array(array, max_megapixels=1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((20, 30), (20, 30, 1)),
        ((20, 30, 1), (20, 30, 1)),
        ((20, 30, 3), (20, 30, 3)),
        ((20, 30, 12), (20, 30, 3)),  # the first three of twelve channels
        ((3, 20, 30), (20, 30, 3)),
        ((1, 20, 30), (20, 30, 1)),
        ((4, 20, 30), (20, 30, 3)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3), (3, 3, 1)),
        ((1, 1), (1, 1, 1)),
    ],
)
def test_the_axes_are_told_by_their_lengths(
    shape: tuple[int, ...], frame: tuple[int, int, int]
) -> None:
    assert image(np.zeros(shape, np.uint8)).pixels.shape == frame


@pytest.mark.parametrize(
    "shape", [(5,), (), (5, 20, 30), (30, 20, 40), (2, 3, 20, 30), (10, 10, 11), (0, 5), (5, 5, 0)]
)
def test_other_shapes_are_one_sentence(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageDecodeError, match="shape"):
        image(np.zeros(shape, np.uint8))


def test_values_stay_where_they_are() -> None:
    array = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)

    pixels = image(array).pixels

    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[..., 1], array[1])


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0, 255, np.uint8),
        (0, 256, np.uint16),
        (-1, 70_000, np.int32),
        (0, 2**40, np.float32),
        (-(2**40), 0, np.float32),
    ],
)
def test_pythons_whole_numbers_take_the_smallest_type(low: int, high: int, kind: type) -> None:
    pixels = image(np.array([[low, high], [low, high]], np.int64)).pixels

    assert pixels.dtype == kind
    assert np.allclose(pixels[0, :, 0].astype(float), [low, high], rtol=1e-6)


def test_floats_are_finite_and_truth_is_black_and_white() -> None:
    found = image(np.array([[0.5, np.nan], [np.inf, 2.0]], ">f8"))

    assert found.pixels[..., 0].tolist() == [[0.5, 0.5], [2.0, 2.0]]
    assert found.pixels.dtype == np.float32
    assert "2 pixel values were not finite" in found.notes[0]
    assert image(np.array([[True, False]])).pixels[..., 0].tolist() == [[255, 0]]


def test_channels_are_chosen_and_noted() -> None:
    array = np.arange(4, dtype=np.uint8) * np.ones((6, 7, 1), np.uint8)

    found = image(array, channels=(3, 0))

    assert found.pixels[0, 0].tolist() == [3, 0]
    assert found.notes == ("Channels 3, 0 of 0 to 3 were used.",)


@pytest.mark.parametrize("asked", [{"plane": 1}, {"channels": (1,)}])
def test_planes_and_channels_that_are_not_there_are_one_sentence(
    asked: dict[str, object],
) -> None:
    with pytest.raises(ImageDecodeError, match="there is no"):
        image(np.zeros((5, 5), np.uint8), **asked)


def test_too_many_pixels_are_refused() -> None:
    with pytest.raises(ImageTooLarge, match="1001 x 1000 pixels"):
        image(np.zeros((1001, 1000), np.uint8))


@pytest.mark.parametrize("kind", ["U3", "O", "c8", "M8[s]"])
def test_what_is_no_number_is_refused(kind: str) -> None:
    with pytest.raises(ImageDecodeError, match="no plain numbers"):
        image(np.zeros((4, 4), kind))


def test_different_arrays_never_share_what_was_computed_of_one() -> None:
    arrays = [
        np.zeros((4, 6), np.uint8),
        np.zeros((6, 4), np.uint8),
        np.zeros((4, 3), np.uint16),
        np.ones((4, 6), np.uint8),
    ]

    assert len({image(array).sha256 for array in arrays}) == len(arrays)
    assert image(arrays[0]).sha256 == image(arrays[0].copy()).sha256
