"""Crops: what the network sees in training is what it sees in serving, and targets fit images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fine_tuning import CPU, annotated, discs
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.engines.catalogue import RESIDUAL_UNET, SAM_VITL
from ml_backend.engines.normalisation import normalise, resize, to_three_channels
from ml_backend.engines.served_network import Traits
from ml_backend.learning import TrainingParameters
from ml_backend.recipes import recipe_for
from ml_backend.training.crops import CropLoader, plain_crop, random_crop, validation_crops
from ml_backend.training.prepared_image import Preparation, PreparedImage, prepare

OURS = Traits(diameter=22.0, scale_bound=True, repeat_gray=True, stride=16, tile=0)
CELLPOSE = Traits(diameter=30.0, scale_bound=False, repeat_gray=False, stride=None, tile=256)
RECIPE = recipe_for(RESIDUAL_UNET, TrainingParameters(batch_size=3), images=1)


def how(folder: Path, traits: Traits = OURS, diameter: float | None = 20.0) -> Preparation:
    return Preparation(
        traits=traits,
        diameter=diameter,
        rescale=True,
        clahe=False,
        contact_weight=0.0,
        folder=folder,
        device=CPU,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedImage:
    found = prepare(
        discs(1, diameter=44.0, edge=280), how(tmp_path_factory.mktemp("a"), diameter=44.0)
    )
    assert found is not None
    return found


@pytest.mark.parametrize("traits", [OURS, CELLPOSE])
def test_a_crop_shows_what_serving_shows_the_network(tmp_path: Path, traits: Traits) -> None:
    image = discs(1, diameter=40.0, edge=200, count=4)
    prepared = prepare(image, how(tmp_path, traits, diameter=2 * traits.diameter))
    assert prepared is not None
    channels = to_three_channels(normalise(image.image.pixels), repeat_gray=traits.repeat_gray)
    served = resize(channels, 100, 100, average=traits.scale_bound)
    recipe = replace(RECIPE, crop=128, frame=0.0)
    pixels, _ = plain_crop(np.random.default_rng(0), prepared, recipe)
    # a small image lies in the middle of the crop, with zeros around it
    np.testing.assert_allclose(pixels[:, 14:114, 14:114], served, atol=1e-5)
    assert not pixels[:, :14].any()
    assert not pixels[:, :, 114:].any()


def test_objects_come_out_with_the_networks_diameter(tmp_path: Path) -> None:
    for diameter in (10.0, 60.0):
        image = discs(2, diameter=diameter, edge=int(6 * diameter), count=1)
        prepared = prepare(image, how(tmp_path, diameter=diameter))
        assert prepared is not None
        _, target = plain_crop(
            np.random.default_rng(0), prepared, replace(RECIPE, crop=128, frame=0.0)
        )
        assert np.sqrt(target[2].sum() * 4 / np.pi) == pytest.approx(22.0, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_flows_point_into_the_objects_however_a_crop_is_turned(
    prepared: PreparedImage, seed: int
) -> None:
    recipe = replace(RECIPE, look=0.0)
    pixels, target = random_crop(np.random.default_rng(seed), prepared, recipe)
    flow, inside = target[:2], target[2] > 0
    # where one goes along the flow, it gets further into the disc: away from the background
    distance = torch.from_numpy(_distance(inside))
    slope_y, slope_x = np.gradient(distance.numpy())
    edge = inside & (distance.numpy() <= 4) & (target[3] > 0.99)
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = False, False, False, False
    if edge.sum() > 30:
        along = flow[0][edge] * slope_y[edge] + flow[1][edge] * slope_x[edge]
        assert (along > 0).mean() > 0.85
    # and the bright pixels are those inside
    if inside.sum() > 50 and (~inside & (target[3] > 0.5)).sum() > 50:
        assert pixels[0][inside].mean() > pixels[0][~inside].mean() + 0.4


def _distance(inside: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)


def test_beyond_the_image_is_black_and_counts_nothing(prepared: PreparedImage) -> None:
    recipe = replace(RECIPE, look=1.0, crop=256)
    pixels, target = random_crop(np.random.default_rng(3), prepared, recipe)
    beyond = target[3] == 0
    assert beyond.any()
    corner = (slice(None), slice(0, 8), slice(0, 8))
    assert not pixels[corner].any()


def test_unfinished_parts_are_seen_but_count_nothing(tmp_path: Path) -> None:
    image = discs(1, edge=120)
    finished = np.zeros((120, 120), bool)
    finished[:, :60] = True
    image = replace(image, finished=finished, labels=np.where(finished, image.labels, 0))
    prepared = prepare(image, how(tmp_path, diameter=22.0))
    assert prepared is not None
    pixels, target = plain_crop(
        np.random.default_rng(0), prepared, replace(RECIPE, crop=128, frame=0.0)
    )
    assert target[3].sum() == pytest.approx(120 * 60, rel=0.01)
    assert pixels[0][:, 64:].max() > 0.5
    assert prepared.places[:, 1].max() < 60


def test_touching_objects_weigh_more_where_they_touch(tmp_path: Path) -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[20:40, 10:30], labels[20:40, 30:50] = 1, 2
    image = annotated(1, (50 + 100 * (labels > 0)).astype(np.uint8)[..., None], labels)
    prepared = prepare(image, replace(how(tmp_path, diameter=22.0), contact_weight=3.0))
    assert prepared is not None
    weight = prepared.target[..., 3] / 4096
    assert weight[30, 30] > 2.5
    assert weight[30, 15] == 1.0


def test_the_same_step_gives_the_same_crops_whatever_the_threads(prepared: PreparedImage) -> None:
    def batches(first: int, threads: int, count: int) -> list[torch.Tensor]:
        with CropLoader([prepared], RECIPE, first_step=first, threads=threads) as loader:
            return [batch.images for batch, _ in zip(loader, range(count), strict=False)]

    one, three = batches(0, 1, 5), batches(0, 3, 5)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    assert torch.equal(batches(3, 1, 1)[0], one[3])
    assert not torch.equal(one[0], one[1])


def test_validation_crops_stay_the_same(prepared: PreparedImage) -> None:
    first = validation_crops([prepared], RECIPE, 4)
    second = validation_crops([prepared], RECIPE, 4)
    assert first is not None
    assert second is not None
    assert torch.equal(first.images, second.images)
    assert validation_crops([], RECIPE, 4) is None


def test_flows_are_computed_once(tmp_path: Path) -> None:
    image = discs(1)
    first = prepare(image, how(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = prepare(image, how(tmp_path))
    assert first is not None
    assert second is not None
    assert first.key == second.key
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert len(files) == 2
    prepare(replace(image, labels=np.where(image.labels == 1, 0, image.labels)), how(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4


def test_colour_and_gray_are_told_to_the_network_as_in_serving(tmp_path: Path) -> None:
    gray = prepare(discs(1), how(tmp_path / "g", CELLPOSE, diameter=30.0))
    assert gray is not None
    recipe = replace(recipe_for(SAM_VITL, TrainingParameters(), images=1), crop=128)
    pixels, _ = random_crop(np.random.default_rng(0), gray, recipe)
    assert pixels[0].any()
    assert not pixels[1:].any()
    image = discs(1)
    colour = np.repeat(image.image.pixels, 3, axis=2)
    colour[..., 1] //= 3
    prepared = prepare(annotated(2, colour, image.labels), how(tmp_path / "c", diameter=22.0))
    assert prepared is not None
    assert prepared.image.shape[2] == 3


def test_a_region_that_vanishes_at_the_networks_scale_is_left_out(tmp_path: Path) -> None:
    image = discs(1, diameter=88.0, edge=240, count=4)
    finished = np.zeros((240, 240), bool)
    finished[0, 0] = True
    empty = replace(image, finished=finished, labels=image.labels * 0)
    assert prepare(empty, how(tmp_path, diameter=88.0)) is None
    finished[:40, :40] = True
    usable = prepare(empty, how(tmp_path, diameter=88.0))
    assert usable is not None
    random_crop(np.random.default_rng(0), usable, RECIPE)


@pytest.mark.parametrize(("width", "is_used"), [(32766, True), (32767, False), (40_000, False)])
def test_crops_are_cut_from_images_as_long_as_opencv_can(
    tmp_path: Path, width: int, is_used: bool
) -> None:
    labels = np.zeros((2, width), np.int32)
    labels[:, -20:] = 1
    pixels = (50 + 100 * (labels > 0)).astype(np.uint8)[..., None]
    pixels[:, ::7] += 40  # the percentiles of a line that is all one value are the same
    prepared = prepare(annotated(1, pixels, labels), how(tmp_path, diameter=22.0))
    assert (prepared is not None) is is_used
    if prepared is not None:
        random_crop(np.random.default_rng(0), prepared, RECIPE)


@pytest.mark.parametrize("size", [0, 60, 1000])
def test_files_that_a_power_loss_cut_short_are_made_again(tmp_path: Path, size: int) -> None:
    image = discs(1)
    whole = prepare(image, how(tmp_path))
    assert whole is not None
    before = np.array(whole.target)
    del whole
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:size])
    again = prepare(image, how(tmp_path))
    assert again is not None
    np.testing.assert_array_equal(again.target, before)
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())
