"""Normalisation is Cellpose's, and survives every data type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from cellpose import transforms
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml_backend.engines.normalisation import normalise, resize, to_three_channels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_percentiles_are_mapped_as_cellpose_does(dtype: npt.DTypeLike) -> None:
    pixels = (np.random.default_rng(0).gamma(2, 30, (60, 70, 3))).astype(dtype)

    ours = normalise(pixels).channels
    stock = transforms.normalize_img(pixels.astype(np.float32))

    np.testing.assert_allclose(ours, stock.transpose(2, 0, 1), atol=2e-5)


def test_percentiles_of_a_large_image_are_sampled_as_cellpose_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (3400, 3400, 1), dtype=np.uint16)

    ours = normalise(pixels).channels
    stock = transforms.normalize_img(pixels.astype(np.float32))

    np.testing.assert_allclose(ours[0, ::50, ::50], stock[::50, ::50, 0], atol=1e-5)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.bool_, np.float16]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=9),
    )
)
@settings(max_examples=50, deadline=None)
def test_every_array_becomes_finite_numbers(pixels: npt.NDArray[np.generic]) -> None:
    for clahe in (False, True):
        image = normalise(pixels, clahe=clahe)

        assert image.channels.shape == (pixels.shape[2], *pixels.shape[:2])
        assert np.isfinite(image.channels).all()


def test_a_constant_channel_is_blank() -> None:
    pixels = np.full((20, 20, 2), 7, np.uint8)
    pixels[5:10, 5:10, 1] = 90

    image = normalise(pixels)

    assert image.blank == (True, False)
    assert not image.channels[0].any()


def test_values_that_are_not_finite_count_as_the_smallest() -> None:
    pixels = np.random.default_rng(0).random((30, 30, 1)).astype(np.float32)
    holed = pixels.copy()
    holed[3, 4], holed[5, 6] = np.nan, np.inf
    pixels[3, 4] = pixels[5, 6] = np.nanmin(pixels)

    np.testing.assert_allclose(normalise(holed).channels, normalise(pixels).channels, atol=0.1)


def test_equalisation_brings_out_what_is_dim() -> None:
    y, x = np.mgrid[:256, :256]
    dim = ((y - 60) ** 2 + (x - 60) ** 2 < 200) * 4.0
    bright = ((y - 180) ** 2 + (x - 180) ** 2 < 4000) * 200.0
    pixels = (20 + dim + bright + np.random.default_rng(0).normal(0, 1, y.shape))[..., None]

    plain = normalise(pixels.astype(np.uint8)).channels[0]
    equalised = normalise(pixels.astype(np.uint8), clahe=True).channels[0]

    def contrast(image: npt.NDArray[np.float32]) -> float:
        return float(image[55:65, 55:65].mean() - image[90:110, 20:40].mean())

    assert contrast(equalised) > 2 * contrast(plain) > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("repeat_gray", [True, False])
def test_networks_always_get_three_channels(channels: int, repeat_gray: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 13, channels), dtype=np.uint8)

    result = to_three_channels(normalise(pixels), repeat_gray=repeat_gray)

    assert result.shape == (3, 12, 13)
    assert result[1].any() == (channels > 1 or repeat_gray)


def test_one_colour_is_gray_to_a_network_trained_on_gray() -> None:
    pixels = np.zeros((12, 13, 3), np.uint8)
    pixels[..., 2] = np.random.default_rng(0).integers(0, 255, (12, 13))

    result = to_three_channels(normalise(pixels), repeat_gray=True)

    np.testing.assert_array_equal(result[0], result[2])
    assert result[0].any()


def test_gray_is_resized_once_and_shared() -> None:
    gray = np.broadcast_to(np.random.default_rng(0).random((10, 12), np.float32), (3, 10, 12))

    resized = resize(gray, 20, 24, average=False)

    assert resized.shape == (3, 20, 24)
    assert resized.strides[0] == 0


def test_shrinking_by_areas_keeps_the_mean() -> None:
    image = (np.random.default_rng(0).random((3, 64, 64)) > 0.95).astype(np.float32)

    shrunk = resize(image, 16, 16, average=True)

    np.testing.assert_allclose(shrunk.mean(axis=(1, 2)), image.mean(axis=(1, 2)), rtol=1e-5)
