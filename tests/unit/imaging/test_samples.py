"""The made-up images are what they say, and the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ml_backend.imaging.samples import (
    bright_field_like,
    bundled_samples,
    fluorescent_nuclei,
    histology_like,
    made_samples,
)

Make = Callable[..., tuple[np.ndarray, np.ndarray]]
MAKERS = [fluorescent_nuclei, histology_like, bright_field_like]


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_always_gives_the_same_image(make: Make) -> None:
    first, again, other = (make(seed, (96, 128), 12) for seed in (3, 3, 4))

    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("shape", [(64, 64), (97, 131), (300, 40)])
def test_any_shape_will_do(make: Make, shape: tuple[int, int]) -> None:
    picture, labels = make(1, shape, 10)

    assert picture.shape[:2] == labels.shape == shape
    assert picture.dtype == np.uint8
    assert labels.dtype == np.int32


@pytest.mark.parametrize("make", MAKERS)
def test_labels_are_consecutive_and_counted(make: Make) -> None:
    _, labels = make(1, (256, 256), 30)

    assert np.unique(labels).tolist() == list(range(31))


def test_no_cell_means_no_label() -> None:
    picture, labels = fluorescent_nuclei(1, (64, 64), 0)

    assert labels.max() == 0
    assert picture.std() > 0


def test_nuclei_are_bright_and_stained_nuclei_are_blue() -> None:
    gray, nuclei = fluorescent_nuclei(1, (256, 256), 30)
    colour, stained = histology_like(1, (256, 256), 50)

    inside, outside = colour[stained > 0].mean(axis=0), colour[stained == 0].mean(axis=0)
    assert gray[nuclei > 0].mean() > 3 * gray[nuclei == 0].mean()
    assert inside[0] < outside[0] - 50
    assert inside[2] > inside[0]


def test_the_demo_gets_two_of_each_kind() -> None:
    names = [sample.name for sample in made_samples()]

    assert names == ["nuclei-1", "nuclei-2", "tissue-1", "tissue-2", "cells-1", "cells-2"]


def test_bundled_images_are_there_without_a_download() -> None:
    samples = bundled_samples()

    assert {"immunohistochemistry", "coins"} <= {sample.name for sample in samples}
    assert all(sample.picture.dtype == np.uint8 for sample in samples)
    assert all(sample.about.endswith(".") for sample in samples)
