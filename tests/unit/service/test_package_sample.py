"""The image that a package is tested with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import BadRequest, ImageDecodeError
from ml_backend.service.package_sample import fitted, given_sample, image_of, made_sample, resized


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 50), (40, 50, 1)),
        ((40, 50, 3), (40, 50, 3)),
        ((40, 50, 4), (40, 50, 3)),
        ((2, 40, 50), (40, 50, 2)),
        ((4, 40, 50), (40, 50, 3)),
    ],
)
def test_an_array_becomes_an_image(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    image = image_of(np.zeros(shape, np.uint16))
    assert image.shape == expected
    assert image.dtype == np.uint16


@pytest.mark.parametrize("shape", [(40,), (40, 20), (2, 3, 40, 50), (40, 50, 7), (0, 0)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadRequest, match="must be an image"):
        image_of(np.zeros(shape))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadRequest, match="not finite"):
        image_of(np.full((40, 40), np.nan))


def test_nothing_is_unpickled() -> None:
    content = npy(np.array([[object()]], dtype=object), allow_pickle=True)
    with pytest.raises(ImageDecodeError):
        given_sample(content)


def test_a_made_sample_has_nuclei_of_the_network_s_size() -> None:
    plain, large = made_sample(scale=1.0, least=192), made_sample(scale=0.5, least=384)
    assert plain.pixels.shape == (256, 512, 1)
    assert large.pixels.shape == (512, 1024, 1)
    np.testing.assert_array_equal(plain.pixels, made_sample(scale=1.0, least=192).pixels)


@given(
    height=st.integers(32, 700),
    width=st.integers(32, 1300),
    least=st.integers(1, 300),
    step=st.sampled_from([0, 1, 16]),
)
def test_a_part_has_sides_that_the_network_takes(
    height: int, width: int, least: int, step: int
) -> None:
    part = fitted(
        np.zeros((height, width, 1), np.uint8), least=least, step=step, largest=(512, 1024)
    )
    for side, length, most in zip(part.shape[:2], (height, width), (512, 1024), strict=True):
        assert side >= least
        assert side <= max(least, min(length, most))
        assert side == least if step == 0 else (side - least) % step == 0


def test_the_part_with_the_most_contrast_is_taken() -> None:
    image = np.zeros((300, 300, 1), np.uint8)
    image[220:280, 220:280] = np.random.default_rng(0).integers(0, 255, (60, 60, 1))
    part = fitted(image, least=100, step=0, largest=(512, 1024))
    assert part.max() > 0


def test_a_resized_image_keeps_its_type() -> None:
    image = np.random.default_rng(0).integers(0, 65535, (40, 60, 2)).astype(np.uint16)
    half = resized(image, 0.5)
    assert (half.shape, half.dtype) == ((20, 30, 2), np.dtype(np.uint16))
