"""Scaling makes points of any embedder's vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml_backend.engines.scaling import MOST_AXES, Scaling, fit_scaling


def vectors(count: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
@settings(max_examples=80, deadline=None)
def test_points_are_finite_and_no_longer_than_one(embeddings: npt.NDArray[np.float32]) -> None:
    scaling = fit_scaling(embeddings)

    points = scaling.apply(embeddings)

    assert points.shape == (len(embeddings), scaling.width)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    assert (np.linalg.norm(points, axis=1) < 1 + 1e-5).all()


@pytest.mark.parametrize(("count", "width"), [(2, 5), (50, 5), (300, 200), (5, 2000)])
def test_points_have_unit_length(count: int, width: int) -> None:
    embeddings = vectors(count, width)

    points = fit_scaling(embeddings).apply(embeddings)

    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)


def test_points_have_few_numbers() -> None:
    embeddings = vectors(400, 300)

    assert fit_scaling(embeddings).width == MOST_AXES
    assert fit_scaling(embeddings, most_axes=7).width == 7
    assert fit_scaling(embeddings[:4]).width == 3


def test_one_image_is_a_point_in_the_middle() -> None:
    embeddings = vectors(1, 40)

    scaling = fit_scaling(embeddings)

    assert scaling.dimension == 40
    assert not scaling.apply(vectors(3, 40, seed=1)).any()


def test_equal_images_are_one_point() -> None:
    embeddings = np.repeat(vectors(1, 40) * 1000, 30, axis=0)

    assert not fit_scaling(embeddings).apply(embeddings).any()


def test_no_image_gives_no_point() -> None:
    scaling = fit_scaling(vectors(20, 6))

    assert scaling.apply(np.empty((0, 6), np.float32)).shape == (0, scaling.width)


def test_the_order_of_images_does_not_matter() -> None:
    embeddings = vectors(60, 10)

    points = fit_scaling(embeddings).apply(embeddings)
    backwards = fit_scaling(embeddings[::-1]).apply(embeddings)

    np.testing.assert_allclose(points, backwards, atol=1e-4)


def test_a_point_does_not_depend_on_the_others_in_the_batch() -> None:
    embeddings = vectors(5000, 10)
    scaling = fit_scaling(embeddings)

    together = scaling.apply(embeddings)

    for index in (0, 4095, 4096, 4999):
        np.testing.assert_allclose(
            scaling.apply(embeddings[index : index + 1])[0], together[index], atol=1e-6
        )


def test_units_and_offsets_do_not_matter() -> None:
    embeddings = vectors(80, 6)
    units = np.array([1, 10, 0.01, 1, 500, 2], np.float32)

    points = fit_scaling(embeddings).apply(embeddings)
    moved = embeddings * units + 3
    converted = fit_scaling(moved).apply(moved)

    np.testing.assert_allclose(points, converted, atol=1e-3)


def test_constant_columns_are_ignored() -> None:
    embeddings = vectors(80, 6)
    constant = np.concatenate([embeddings, np.full((80, 3), 12345.678, np.float32)], axis=1)

    points = fit_scaling(embeddings).apply(embeddings)
    scaling = fit_scaling(constant)
    unusual = constant.copy()
    unusual[:, 6:] = -1e6

    np.testing.assert_allclose(np.abs(scaling.apply(constant)), np.abs(points), atol=1e-4)
    np.testing.assert_array_equal(scaling.apply(constant), scaling.apply(unusual))


def test_an_outlier_is_held_back() -> None:
    embeddings = vectors(200, 6)
    scaling = fit_scaling(embeddings)
    far, farther = embeddings[:1].copy(), embeddings[:1].copy()
    far[0, 2], farther[0, 2] = 50, 1e6

    np.testing.assert_allclose(scaling.apply(far), scaling.apply(farther), atol=1e-6)


def test_a_large_family_does_not_outweigh_a_small_one() -> None:
    random = np.random.default_rng(0)
    kind = np.arange(200) % 2  # told by the small family alone
    small = kind[:, None] * 4 + random.normal(size=(200, 1))
    copies = random.normal(size=(200, 1)) + 0.1 * random.normal(size=(200, 50))
    embeddings = np.concatenate([small, copies], axis=1).astype(np.float32)

    def told_apart(scaling: Scaling) -> float:
        points = scaling.apply(embeddings)
        between = points[kind == 0].mean(axis=0) - points[kind == 1].mean(axis=0)
        return float(np.linalg.norm(between))

    weighted = fit_scaling(embeddings, groups={"small": slice(0, 1), "large": slice(1, 51)})

    assert told_apart(weighted) > 1.2 * told_apart(fit_scaling(embeddings))


def test_the_fit_is_the_same_every_time() -> None:
    embeddings = vectors(300, 40)

    first, second = (fit_scaling(embeddings).to_arrays() for _ in range(2))

    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_arrays_bring_the_scaling_back() -> None:
    embeddings = vectors(50, 12)
    scaling = fit_scaling(embeddings)

    again = Scaling.from_arrays(scaling.to_arrays())

    assert (again.dimension, again.width) == (12, scaling.width)
    np.testing.assert_array_equal(again.apply(embeddings), scaling.apply(embeddings))


@pytest.mark.parametrize("name", ["mean", "factor", "weight", "centre", "axes"])
def test_arrays_that_do_not_go_together_are_refused(name: str) -> None:
    arrays = fit_scaling(vectors(50, 12)).to_arrays()
    missing = {key: array for key, array in arrays.items() if key != name}
    shorter = arrays | {name: arrays[name][:-1]}
    damaged = arrays | {name: np.full_like(arrays[name], np.nan)}

    for wrong in (missing, shorter, damaged):
        with pytest.raises(ValueError, match="scaling"):
            Scaling.from_arrays(wrong)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,)])
def test_nothing_cannot_be_scaled(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be scaled"):
        fit_scaling(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_are_refused(value: float) -> None:
    embeddings = vectors(10, 4)
    embeddings[3, 2] = value

    with pytest.raises(ValueError, match="finite"):
        fit_scaling(embeddings)
