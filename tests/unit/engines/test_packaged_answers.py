"""What is promised to others is what the engine answers in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.instances import InstanceOptions
from ml_backend.engines.network_store import load_on_cpu
from ml_backend.engines.packaged.answers import (
    estimated_diameter,
    labels_of,
    network_channels,
    steps_at,
    tile_answer,
    whole_answer,
)
from ml_backend.engines.served_network import traits_of
from tests.package_checks import masks_of, nuclei
from tests.small_cpsam import SmallCpsam

pytestmark = pytest.mark.unhurried


@pytest.mark.parametrize("diameter", [22.0, 30.0])
def test_masks_are_those_of_the_engine(diameter: float) -> None:
    component = resolve_component("nuclei-1", models_dir=Path("nowhere"), cuda=False)
    network, image = load_on_cpu(component), nuclei(shape=(200, 260))
    traits = traits_of(network, component.architecture)
    scale = traits.diameter / diameter

    channels = network_channels(image.pixels, traits)
    answer = whole_answer(network, traits, channels, scale)
    options = InstanceOptions(
        flow_threshold=0.4, cellprob_threshold=0.0, iterations=steps_at(scale), min_size=15
    )

    expected = masks_of(component, image, diameter=diameter)
    assert expected.max() > 10
    np.testing.assert_array_equal(labels_of(answer, options), expected)


def test_the_size_of_objects_is_estimated_as_by_the_engine() -> None:
    component = resolve_component("nuclei-1", models_dir=Path("nowhere"), cuda=False)
    network, image = load_on_cpu(component), nuclei(shape=(200, 260))
    traits = traits_of(network, component.architecture)

    diameter = estimated_diameter(network, traits, network_channels(image.pixels, traits))

    assert diameter is not None
    assert 15 < diameter < 32
    nothing = np.zeros((64, 64, 1), np.uint8)
    assert estimated_diameter(network, traits, network_channels(nothing, traits)) is None


def test_a_transformer_answers_to_one_tile() -> None:
    torch.manual_seed(0)
    network = SmallCpsam().eval().requires_grad_(False)
    traits = traits_of(network, "sam-vitl")
    channels = np.random.default_rng(0).random((3, 256, 256), dtype=np.float32)

    answer = tile_answer(network, traits, channels, 256)

    expected = network(torch.from_numpy(channels)[None])[0][0].numpy()
    np.testing.assert_array_equal(answer, expected)
    wide = np.concatenate([channels, channels], axis=2)[:, :100, :300]
    assert whole_answer(network, traits, wide, 1.0).shape == (3, 100, 300)
